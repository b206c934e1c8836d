"""What each kind of operation is to relevance: how totals come to be, and how relevance goes back.

A value is handed two kinds of thing on the walk back. Its *relevance*, by whoever used the value. Or
*factors*, one a
channel, by a sum that it is a term of: a contribution times its channel's factor is its relevance. A sum that has
been handed relevance turns it into factors (`walk`), and then shares factors alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rnnx_lightning.explain.channels import FLIPPED, Channel
from rnnx_lightning.explain.linear import LinearMap, Product, leaf_of, relevance_of_input
from rnnx_lightning.explain.node import RELEVANCE, Node, Total, power
from rnnx_lightning.explain.refusals import UnexplainableError
from rnnx_lightning.explain.rules import Rule

Part = tuple[Node, Channel]


class Row:
    """A kind of operation.

    Attributes:
        absorbs: as a sum, it hands factors to its sources, whose totals it needs.
        rectifies: it gives relevance only to what is positive.
        keeps: the walk ends here.
    """

    absorbs = True
    rectifies = False
    keeps = False

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """The totals that a total is made of."""
        return [(source, channel) for source in node.sources if source is not None]

    def total(self, node: Node, channel: Channel) -> Total | None:
        """A total of a sum, from the totals of its parts; None where there is nothing in the channel."""
        raise NotImplementedError

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Hand on the factor of a channel."""
        raise NotImplementedError

    def finish(self, node: Node) -> None:
        """All factors have been shared."""

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Hand on the relevance of what is no sum: all to the one source."""
        (source,) = node.sources
        assert source is not None  # there would be no node
        source.receive(relevance.sum_to_size(source.shape))


class Leaf(Row):
    """The input."""

    absorbs = False
    keeps = True


class Pass(Row):
    """An activation with f(0) = 0, a gated signal: all to the source."""

    absorbs = False


class Relu(Pass):
    """As any activation; what is not active has no relevance."""

    rectifies = True


class Opaque(Row):
    """There is no way back."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Refused.

        Raises:
            UnexplainableError: relevance has come here.
        """
        raise UnexplainableError(node.refusal or node.reason)


class Embedding(Row):
    """Tokens were looked up in a table: a token gets what all entries of its vector get."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Summed over the vector."""
        (source,) = node.sources
        assert source is not None  # there would be no node
        source.receive(relevance.sum(-1))


class Map(NamedTuple):
    """One call of a linear operation, and the rule of its contributions."""

    rule: Rule
    layer: LinearMap


class MapCall:
    """The maps of a linear operation: of pixels, of features, or of either."""

    def __init__(self, maps: list[Map]) -> None:
        self.maps = maps
        self.due: list[tuple[Product, Tensor]] = []  # to be transposed together
        self._products: dict[tuple[int, Channel], list[Product]] = {}

    def products(self, number: int, channel: Channel) -> list[Product]:
        """What the contributions of one map are, made once."""
        key = (number, channel)
        if key not in self._products:
            rule, layer = self.maps[number]
            self._products[key] = rule.contributions(layer, channel)
        return self._products[key]


class Linear(Row):
    """A linear map of one source; `call` is a `MapCall`."""

    absorbs = False

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """None: it has its input."""
        return ()

    def total(self, node: Node, channel: Channel) -> Total | None:
        """Sums of products; the bias is the constant."""
        call: MapCall = node.call
        if channel is Channel.CONSTANT:
            biases = [layer.bias for _, layer in call.maps if layer.bias is not None]
            return Total(biases[0].to(node.dtype)) if biases else None
        total: Tensor | None = None
        for number, (rule, layer) in enumerate(call.maps):
            if self._left_out(node, rule, channel):
                continue
            layer.active_only = not node.exact
            part = layer.known_total(channel) if rule.plain else None
            part = rule.total(layer, channel) if part is None else part
            for product in call.products(number, channel) if part is None else ():
                own = product.sign * product.total() if product.sign != 1 else product.total()
                part = own if part is None else part + own
            if part is not None:
                total = part if total is None else total + part
        return None if total is None else Total(total)

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Note what is to be transposed."""
        call: MapCall = node.call
        for number, (rule, _) in enumerate(call.maps):
            if not self._left_out(node, rule, channel):
                call.due += [(product, factor) for product in call.products(number, channel)]

    def finish(self, node: Node) -> None:
        """Transpose what is due."""
        (source,) = node.sources
        relevance = relevance_of_input(node.call.due)
        if source is not None and relevance is not None:
            source.receive(relevance)

    @staticmethod
    def _left_out(node: Node, rule: Rule, channel: Channel) -> bool:
        """Contributions that are positive by their rule are no negative ones of a sum with others."""
        assert node.rule is not None  # it is a sum
        return channel is Channel.NEGATIVE and rule.adapts and not node.rule.adapts


class Constant(Row):
    """A term that is no signal; `call` is its value."""

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """None."""
        return ()

    def total(self, node: Node, channel: Channel) -> Total | None:
        """The value."""
        return Total(node.call) if channel is Channel.CONSTANT else None

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Nobody gets it."""


class Sum(Row):
    """Terms that are sums of contributions themselves."""

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """The terms'; what is positive by its rule alone has nothing negative."""
        if channel is not Channel.NEGATIVE:
            return super().parts(node, channel)
        return [(source, channel) for source in node.sources if source is not None and not _positive(node, source)]

    def total(self, node: Node, channel: Channel) -> Total | None:
        """Their sum."""
        return added([source.total(c) for source, c in self.parts(node, channel)])

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """The same factor to all terms."""
        for source, _ in self.parts(node, channel):
            own = rescaled(factor, node, source, channel)
            if own is not None:
                source.receive(own if own.shape == source.shape else own.sum_to_size(source.shape), channel)


class Scaling(NamedTuple):
    """How a sum is scaled.

    Attributes:
        factor: a gate's value, or a constant.
        nonnegative: the factor is.
        normalise: give the totals exponents.
    """

    factor: Tensor | float
    nonnegative: bool
    normalise: bool


class Scale(Row):
    """A sum times a gate or a constant; `call` is a `Scaling`. A negative factor swaps the channels."""

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """The same channel, and where the factor can be negative the other one."""
        (source,) = node.sources
        assert source is not None
        assert source.rule is not None
        scaling: Scaling = node.call
        if scaling.nonnegative or channel not in (Channel.POSITIVE, Channel.NEGATIVE):
            return [(source, channel)]
        if channel is Channel.NEGATIVE and source.rule.adapts:
            return [(source, Channel.NEGATIVE)]
        return [(source, channel), (source, FLIPPED[channel])]

    def total(self, node: Node, channel: Channel) -> Total | None:
        """The source's, scaled."""
        scaling: Scaling = node.call
        scaled = []
        for (source, c), factor in zip(self.parts(node, channel), self._factors(scaling, channel), strict=False):
            total = source.total(c)
            if total is not None:
                product = total.mantissa * factor if factor is not None else total.mantissa
                scaled.append(Total(product, total.exponent))
        total = added(scaled)
        if total is None or not scaling.normalise or channel in (Channel.NET, Channel.COUNT):
            return total
        return normalised(total)

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Scaled in the same way."""
        for (source, c), scale in zip(self.parts(node, channel), self._factors(node.call, channel), strict=False):
            own = rescaled(factor, node, source, channel, c)
            if own is not None:
                own = own if scale is None else own * scale
                source.receive(own if own.shape == source.shape else own.sum_to_size(source.shape), c)

    @staticmethod
    def _factors(scaling: Scaling, channel: Channel) -> Sequence[Tensor | float | None]:
        factor = scaling.factor
        if channel is Channel.COUNT:
            return [None]
        if scaling.nonnegative or channel in (Channel.NET, Channel.CONSTANT):
            return [factor]
        if isinstance(factor, Tensor):
            return [factor.clamp(min=0), factor.clamp(max=0).neg()]
        return [max(factor, 0.0), max(-factor, 0.0)]


class Movement(NamedTuple):
    """Entries are moved, chosen or repeated.

    Attributes:
        apply: forward.
        undo: back; None where `apply` gives a view of some entries.
    """

    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor] | None = None


class Move(Row):
    """Entries are moved; `call` is a `Movement`."""

    def total(self, node: Node, channel: Channel) -> Total | None:
        """Moved in the same way."""
        (source,) = node.sources
        assert source is not None  # there would be no node
        total = source.total(channel)
        if total is None:
            return None
        mantissa, exponent = (None if t is None else node.call.apply(t.expand(source.shape)) for t in total)
        assert mantissa is not None  # a total has one
        return Total(mantissa, exponent)

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Moved back."""
        self._back(node, factor, channel)

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Moved back."""
        self._back(node, relevance, RELEVANCE)

    @staticmethod
    def _back(node: Node, part: Tensor, slot: int) -> None:
        (source,) = node.sources
        assert source is not None  # there would be no node
        movement: Movement = node.call
        if movement.undo is None:
            source.receive_at(movement.apply, part, slot)
        else:
            source.receive(movement.undo(part), slot)


class Joining(NamedTuple):
    """Several tensors are put together: each entry of the result is one of theirs.

    Attributes:
        apply: forward, from one tensor a source; None is a source without entries (zeros).
        undo: back, to one tensor a source; None for a constant.
    """

    apply: Callable[[Sequence[Tensor | None]], Tensor]
    undo: Callable[[Tensor], Sequence[Tensor | None]]


class Join(Row):
    """Tensors are put together; `call` is a `Joining`."""

    def total(self, node: Node, channel: Channel) -> Total | None:
        """Put together in the same way."""
        totals = [None if source is None else source.total(channel) for source in node.sources]
        if all(total is None for total in totals):
            return None

        def whole(part: Tensor | None, source: Node | None) -> Tensor | None:
            return None if part is None or source is None else part.expand(source.shape)

        pairs = list(zip(totals, node.sources, strict=True))
        mantissa = node.call.apply([None if t is None else whole(t.mantissa, s) for t, s in pairs])
        if all(total is None or total.exponent is None for total in totals):
            return Total(mantissa)
        return Total(mantissa, node.call.apply([None if t is None else whole(t.exponent, s) for t, s in pairs]))

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Taken apart."""
        self._back(node, factor, channel)

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Taken apart."""
        self._back(node, relevance, RELEVANCE)

    @staticmethod
    def _back(node: Node, part: Tensor, slot: int) -> None:
        for source, own in zip(node.sources, node.call.undo(part), strict=True):
            if source is not None and own is not None:
                source.receive(own, slot)


class Vjp(Row):
    """Relevance goes the way of the gradient, as where the winner takes all; `call` is (function, value)."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """The transposed derivative."""
        (source,) = node.sources
        assert source is not None  # there would be no node
        function, value = node.call
        source.receive(transposed(function, value, relevance))


class Half(Row):
    """A product of two signals, of which each takes half; `call` is (function, values)."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Either as a linear map of it, by the epsilon rule (LRP-half; Achtibat et al., 2024)."""
        function, values = node.call
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            leaves = [leaf_of(value) for value in values]
            result = function(*leaves)
            whole = result if create else result.detach()
            factor = relevance / whole.masked_fill(result == 0, torch.inf)
            gradients = torch.autograd.grad(result, leaves, factor, create_graph=create)
        for source, value, gradient in zip(node.sources, values, gradients, strict=True):
            assert source is not None  # both are signals
            source.receive(0.5 * gradient * value)


def transposed(function: Callable[[Tensor], Tensor], value: Tensor, part: Tensor) -> Tensor:
    """The derivative of a function at `value`, transposed, times `part`."""
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = leaf_of(value)
        return torch.autograd.grad(function(leaf), leaf, part, create_graph=create)[0]


def added(totals: Sequence[Total | None]) -> Total | None:
    """The sum of the totals that there are."""
    result: Total | None = None
    for total in totals:
        if total is None or result is None:
            result = result if total is None else total
        elif total.exponent is None and result.exponent is None:
            result = Total(result.mantissa + total.mantissa)
        else:
            one, other = (exponent_of(t) for t in (result, total))
            exponent = torch.maximum(one, other)
            a, b = result.mantissa, total.mantissa
            result = Total(a * power(one - exponent, a) + b * power(other - exponent, b), exponent)
    return result


EMPTY = -1e9  # the exponent of 0


def exponent_of(total: Total) -> Tensor:
    """A total's exponent; that of 0 is lower than all others."""
    exponent = torch.zeros_like(total.mantissa, dtype=torch.float32) if total.exponent is None else total.exponent
    return torch.where(total.mantissa == 0, EMPTY, exponent)


def normalised(total: Total) -> Total:
    """The same with mantissas near 1."""
    mantissa, exponent = torch.frexp(total.mantissa.detach())
    shift = exponent.to(torch.float32)
    if torch.is_grad_enabled():  # frexp has no gradient by the mantissa
        mantissa = total.mantissa * power(-shift, total.mantissa)
    return Total(mantissa, shift if total.exponent is None else total.exponent + shift)


def rescaled(
    factor: Tensor, node: Node, source: Node, channel: Channel, of: Channel | None = None
) -> Tensor | None:
    """A factor of the node's total as one of a term's total; None where the term has nothing in the channel."""
    if not node.scaled or channel not in (Channel.POSITIVE, Channel.NEGATIVE):
        return factor
    whole, part = node.total(channel), source.total(channel if of is None else of)
    if whole is None or part is None:
        return None
    if whole.exponent is None or whole.exponent is part.exponent:
        return factor
    shift = exponent_of(part) - whole.exponent
    return factor * power(shift, factor)


def _positive(node: Node, source: Node) -> bool:
    """All contributions of a term are positive by its rule."""
    assert node.rule is not None
    assert source.rule is not None
    return source.rule.adapts and not node.rule.adapts


LEAF, PASS, RELU, OPAQUE, EMBEDDING = Leaf(), Pass(), Relu(), Opaque(), Embedding()
LINEAR, CONSTANT = Linear(), Constant()
SUM, SCALE, MOVE, JOIN, VJP, HALF = Sum(), Scale(), Move(), Join(), Vjp(), Half()
