"""Operations that move, choose, repeat and join entries."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.node import RELEVANCE, Node
from rnnx_lightning.explain.rows.row import Row, has
from rnnx_lightning.explain.totals import Total


class Rearranged(Row):
    """Each entry is an entry of a source, so factors and relevance go back in the same way."""

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Pass the factor to where the entries come from."""
        self._back(node, factor, channel)

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Pass the relevance to where the entries come from."""
        self._back(node, relevance, RELEVANCE)

    def _back(self, node: Node, part: Tensor, slot: int) -> None:
        raise NotImplementedError


class Movement(NamedTuple):
    """How entries are moved, chosen or repeated.

    Attributes:
        apply: the forward direction.
        undo: the backward direction; None if `apply` returns a view of some entries.
        ordered: all entries are kept, in their order.
        one_hot: numbers are written at tokens, along the last dimension.
    """

    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor] | None = None
    ordered: bool = False
    one_hot: bool = False


UNMOVED = Movement(lambda part: part, lambda part: part, ordered=True)  # all entries stay where they are
DETACHED = Movement(lambda part: part, lambda part: part, ordered=True)  # of pixels


class Move(Rearranged):
    """Entries are moved; `call` is a `Movement`."""

    def total(self, node: Node, channel: Channel) -> Total | None:
        """The source's total, moved in the same way."""
        (source,) = node.sources
        assert source is not None  # else there would be no node
        total = source.total(channel)
        if total is None:
            return None
        mantissa, exponent = (None if t is None else node.call.apply(t.expand(source.shape)) for t in total)
        assert mantissa is not None  # a total has one
        return Total(mantissa, exponent)

    def _back(self, node: Node, part: Tensor, slot: int) -> None:
        (source,) = node.sources
        assert source is not None  # else there would be no node
        movement: Movement = node.call
        if movement.undo is None:
            source.receive_at(movement.apply, part, slot)
        else:
            source.receive(movement.undo(part), slot)


class Joining(NamedTuple):
    """How several tensors are joined: each entry of the result is an entry of one of them.

    Attributes:
        apply: the forward direction, from one tensor per source; None stands for zeros.
        undo: the backward direction, to one tensor per source; None for a constant.
    """

    apply: Callable[[Sequence[Tensor | None]], Tensor]
    undo: Callable[[Tensor], Sequence[Tensor | None]]


class Join(Rearranged):
    """Tensors are joined; `call` is a `Joining`."""

    def total(self, node: Node, channel: Channel) -> Total | None:
        """The totals of the sources, joined in the same way."""
        totals = [
            source.total(channel) if source is not None and has(node, source, channel) else None
            for source in node.sources
        ]
        if all(total is None for total in totals):
            return None

        def whole(part: Tensor | None, source: Node | None) -> Tensor | None:
            return None if part is None or source is None else part.expand(source.shape)

        pairs = list(zip(totals, node.sources, strict=True))
        mantissa = node.call.apply([None if t is None else whole(t.mantissa, s) for t, s in pairs])
        if all(total is None or total.exponent is None for total in totals):
            return Total(mantissa)
        return Total(mantissa, node.call.apply([None if t is None else whole(t.exponent, s) for t, s in pairs]))

    def _back(self, node: Node, part: Tensor, slot: int) -> None:
        for source, own in zip(node.sources, node.call.undo(part), strict=True):
            if source is not None and own is not None and has(node, source, slot):
                source.receive(own, slot)
