"""Sums of sums, and scaled sums."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rnnx_lightning.explain.channels import FLIPPED, Channel
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows.row import Part, Row, of_terms
from rnnx_lightning.explain.totals import Total, added, exponent_of, normalised, power


class Sum(Row):
    """A sum of terms that are sums of contributions."""

    def total(self, node: Node, channel: Channel) -> Total | None:
        """The sum of the terms' totals."""
        return added([source.total(c) for source, c in self.parts(node, channel)])

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """All terms get the same factor."""
        for source, _ in self.parts(node, channel):
            own = rescaled(factor, node, source, channel)
            if own is not None:
                source.receive(own if own.shape == source.shape else own.sum_to_size(source.shape), channel)


class Scaling(NamedTuple):
    """How a sum is scaled.

    Attributes:
        factor: the value of a gate, or a constant.
        nonnegative: whether the factor is >= 0.
        normalise: whether to give the totals exponents.
    """

    factor: Tensor | float
    nonnegative: bool
    normalise: bool


class Scale(Row):
    """A sum times a gate or a constant; `call` is a `Scaling`. A negative factor swaps the channels.

    A rule that `adapts` gives positive contributions only, so that its `NET` is its `POSITIVE`.
    """

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """The same channel, and the opposite one if the factor can be negative."""
        if node.sides is not None:
            return of_terms(node, node.sides, channel)
        (source,) = node.sources
        assert source is not None
        assert source.rule is not None
        scaling: Scaling = node.call
        if scaling.nonnegative or channel in (Channel.CONSTANT, Channel.COUNT):
            return [(source, channel)]
        if channel is Channel.NET:
            return [(source, channel), (source, Channel.NEGATIVE)] if source.rule.adapts else [(source, channel)]
        return [(source, channel), (source, FLIPPED[channel])]

    def total(self, node: Node, channel: Channel) -> Total | None:
        """The scaled total of the source."""
        scaling: Scaling = node.call
        scaled = []
        for (source, c), factor in zip(self.parts(node, channel), self._factors(node, channel), strict=True):
            total = source.total(c)
            if total is not None:
                product = total.mantissa * factor if factor is not None else total.mantissa
                scaled.append(Total(product, total.exponent))
        total = added(scaled)
        if total is None or not scaling.normalise or channel in (Channel.NET, Channel.COUNT):
            return total
        return normalised(total)

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """The source gets the scaled factor."""
        for (source, c), scale in zip(self.parts(node, channel), self._factors(node, channel), strict=True):
            own = rescaled(factor, node, source, channel, c)
            if own is not None:
                own = own if scale is None else own * scale
                source.receive(own if own.shape == source.shape else own.sum_to_size(source.shape), c)

    def _factors(self, node: Node, channel: Channel) -> Sequence[Tensor | float | None]:
        """Of each part."""
        scaling: Scaling = node.call
        factor, rule = scaling.factor, node.rule
        assert rule is not None  # it is a sum
        if node.sides is not None:  # they are scaled
            return [None] * len(self.parts(node, channel))
        if channel is Channel.COUNT:
            return [None]
        if channel is Channel.CONSTANT or (channel is Channel.NET and not rule.adapts):
            return [factor]
        sides: list[Tensor | float] = [factor]
        if not scaling.nonnegative and isinstance(factor, Tensor):
            sides = [factor.clamp(min=0), factor.clamp(max=0).neg()]
        elif not scaling.nonnegative:
            sides = [max(factor, 0.0), max(-factor, 0.0)]
        # A gate, as that of a memory, is in no weights.
        return sides if node.gated else [rule.scaled(side) for side in sides]


def rescaled(
    factor: Tensor, node: Node, source: Node, channel: Channel, of: Channel | None = None
) -> Tensor | None:
    """A factor for the node's total, as a factor for a term's total; None if the term's channel is empty."""
    if not node.scaled or channel not in (Channel.POSITIVE, Channel.NEGATIVE):
        return factor
    whole, part = node.total(channel), source.total(channel if of is None else of)
    if whole is None or part is None:
        return None
    if whole.exponent is None or whole.exponent is part.exponent:
        return factor
    shift = (exponent_of(part) - whole.exponent).masked_fill(whole.mantissa == 0, 0)
    return factor * power(shift, factor)
