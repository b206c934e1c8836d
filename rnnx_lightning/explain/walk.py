"""The backward pass over the tape: each node receives relevance and passes it on."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rnnx_lightning.explain.channels import CHANNELS, Channel
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.node import RELEVANCE, Node
from rnnx_lightning.explain.rows import OPAQUE
from rnnx_lightning.explain.totals import Total, Unknown, added, exponent_of, fraction, power


def find_exact(nodes: Sequence[Node], everywhere: bool) -> None:
    """Mark the sums whose totals must be right for all units.

    Something other than ReLU reads them; or what ReLU gives is read by a function that is not 0 at 0, such as a
    sigmoid, so that units that are switched off get relevance, too.
    """
    for node in reversed(nodes):
        node.exact |= everywhere
        absorbs = node.rule is not None and node.row.absorbs
        fills = node.gate or node.row.fills or (node.filled and node.rule is None)
        for source in node.sources:
            if source is None:
                continue
            source.filled |= fills
            if source.rule is not None:
                source.exact |= node.exact if absorbs else fills or not node.row.rectifies


def walk(nodes: list[Node], composite: Composite, kept: dict[int, Tensor | None], anything: bool = True) -> None:
    """Pass relevance from the last nodes back to the inputs.

    Args:
        nodes: the nodes of the tape; the list is emptied on the way, to free memory.
        composite: how biases are treated.
        kept: receives the relevance of each kept node, by the node's id.
        anything: there is relevance at the output. Then an operation without a rule that gets relevance 0 only is
            of an output that is not explained, and not refused.
    """
    while nodes:
        node = nodes.pop()
        if node.row.keeps:
            continue
        relevance = node.inbox[RELEVANCE]
        if node.kept:
            of_term = None if node.rule is None else _relevance_of_term(node, composite.bias)
            kept[id(node)] = together([relevance, of_term])
        if node.rule is not None:
            if relevance is not None:
                close(node, relevance, composite)
                relevance = None  # so that `finish` can free it
            for channel in CHANNELS:
                factor = node.inbox[channel]
                if factor is not None:
                    node.row.share(node, channel, factor)
            node.row.finish(node)
        elif relevance is not None and not (node.row is OPAQUE and anything and not bool(relevance.any())):
            node.row.pass_on(node, relevance)
        node.free()


def together(parts: Iterable[Tensor | None]) -> Tensor | None:
    """The sum of those parts of relevance that there are."""
    known = [part for part in parts if part is not None]
    return sum(known[1:], known[0]) if known else None


def evaluate(node: Node, channel: Channel) -> Total | None:
    """A total, from the totals of its parts. Does not recurse: sums can be as deep as the sequence is long."""
    ahead = [(node, channel)]
    while ahead:
        current, wanted = ahead[-1]
        if not isinstance(current.totals[wanted], Unknown):
            ahead.pop()
            continue
        missing = [
            part for part in current.row.parts(current, wanted) if isinstance(part[0].totals[part[1]], Unknown)
        ]
        if missing:
            ahead += missing
        else:
            current.totals[wanted] = current.row.total(current, wanted)
            ahead.pop()
    return node.total(channel)


class _Unit:
    """The totals of a node, as a `Sharing` sees them."""

    def __init__(self, node: Node, bias: str) -> None:
        assert node.rule is not None  # only sums are shared
        self._node = node
        self._counts_constant = node.constant and not node.rule.adapts and bias != "ignore"
        self._ignores_constant = node.constant and bias == "ignore"
        self._real = node.rule.sharing.real_scale
        self.active = not node.exact and not self._ignores_constant
        self.by_value = node.by_value and not node.scaled and not node.constant and node.value is not None
        self.spreads = bias == "spread"
        self.scale: Tensor | None = None  # multiplies the factor of `positive`

    @property
    def net(self) -> Tensor:
        node = self._node
        if node.by_value and not self._ignores_constant:  # value - constant would lose digits
            assert node.value is not None  # kept for this
            return node.value
        parts = [evaluate(node, Channel.NET), evaluate(node, Channel.CONSTANT) if self._counts_constant else None]
        return self._whole(added(parts))

    @property
    def positive(self) -> Tensor:
        node = self._node
        if self.by_value and self.active:
            assert node.value is not None  # kept for this
            negative = self.negative
            return node.value if negative is None else node.value + negative
        own, constant = evaluate(node, Channel.POSITIVE), self._clamped_constant()
        total = added([own, constant])
        if total is None:
            return self._whole(None)
        if self._real:
            return self._whole(total)
        if own is not None and own.exponent is not None and constant is not None:
            self.scale = fraction(exponent_of(own) - exponent_of(total), total.mantissa)
        elif own is not None and own.exponent is None and total.exponent is not None:
            self.scale = power(-exponent_of(total), total.mantissa)
        return total.mantissa.expand(node.shape)

    @property
    def negative(self) -> Tensor | None:
        total = evaluate(self._node, Channel.NEGATIVE)
        return None if total is None else (total.real if self._real else total.mantissa)

    @property
    def constant(self) -> Tensor | None:
        total = evaluate(self._node, Channel.CONSTANT) if self._counts_constant else None
        return None if total is None else total.real

    @property
    def count(self) -> Tensor:
        return self._whole(evaluate(self._node, Channel.COUNT))

    def _clamped_constant(self) -> Total | None:
        total = evaluate(self._node, Channel.CONSTANT) if self._counts_constant else None
        return None if total is None else Total(total.mantissa.clamp(min=0), total.exponent)

    def _whole(self, total: Total | None) -> Tensor:
        node = self._node
        if total is None:
            return torch.zeros(node.shape, dtype=node.dtype, device=node.device)
        return total.real.to(node.dtype).expand(node.shape)


def close(node: Node, relevance: Tensor, composite: Composite) -> None:
    """Turn the relevance of a sum into the factors of its channels."""
    assert node.rule is not None  # only sums are closed
    unit = _Unit(node, composite.bias)
    given: Tensor | None = None
    for channel, factor in node.rule.sharing.factors(relevance, unit).items():
        if channel is Channel.NET:
            total = unit.net if composite.bias == "spread" else None
        else:
            scaled = _total_of_factor(node, channel, unit)
            if channel is Channel.POSITIVE and unit.scale is not None:
                factor = factor * unit.scale
            if scaled is not None and scaled.exponent is not None and node.rule.sharing.real_scale:
                factor = factor * power(scaled.exponent, factor)
            total = None if scaled is None else scaled.mantissa
        node.receive(factor, channel)
        if composite.bias == "spread" and total is not None:
            if channel is Channel.NET and unit.constant is not None:
                total = total - unit.constant
            given = factor * total if given is None else given + factor * total
    if composite.bias == "spread":  # distribute evenly what the contributions did not get
        count = unit.count
        left = relevance if given is None else relevance - given
        node.receive(left / count.masked_fill(count == 0, torch.inf), Channel.COUNT)


def _total_of_factor(node: Node, channel: Channel, unit: _Unit) -> Total | None:
    """The total that a factor belongs to, if it is needed: for its exponent, or to spread biases; else None."""
    return evaluate(node, channel) if node.scaled or unit.spreads else None


def _relevance_of_term(node: Node, bias: str) -> Tensor | None:
    """The relevance of a sum as a term of others: that of its contributions, and of its constant if it has any."""
    assert node.rule is not None  # it is a sum
    relevance: Tensor | None = None
    counts = node.constant and not node.rule.adapts and bias == "share"
    constant = evaluate(node, Channel.CONSTANT) if counts else None
    for channel in CHANNELS:
        factor = node.inbox[channel]
        if factor is None:
            continue
        if channel is Channel.NET and node.by_value and (counts or not node.constant):
            assert node.value is not None  # kept for this
            part = node.value
        else:
            total = evaluate(node, channel)
            if total is None and not counts:
                continue
            part = torch.zeros_like(factor) if total is None else total.mantissa
            if constant is not None and channel in (Channel.POSITIVE, Channel.NET):
                part = part + (
                    constant.mantissa.clamp(min=0) if channel is Channel.POSITIVE else constant.mantissa
                )
        relevance = factor * part if relevance is None else relevance + factor * part
    return relevance
