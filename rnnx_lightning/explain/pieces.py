"""Parts of a joined tensor that are read back: `h, c = state.chunk(2)` after `state = torch.cat([h, c])`.

A part that is read as it was written has the relevance that it has without the tensor in between. Otherwise a
memory cell that is kept in one tensor with a hidden state, or in a buffer, would not be one sum over time, and a
gate in one tensor with signals would be a signal.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import UNMOVED, Movement

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape

Place = tuple[int, tuple[tuple[int, int], ...]]  # offset, and length and stride of all dimensions longer than 1


def place(view: Tensor) -> Place:
    """Where a view lies in its memory."""
    return geometry(view.shape, view.stride(), int(view.storage_offset()))


def geometry(shape: torch.Size, stride: tuple[int, ...], offset: int) -> Place:
    """The place of a view with this geometry."""
    return offset, tuple((length, step) for length, step in zip(shape, stride, strict=True) if length != 1)


def in_order(tensor: Tensor) -> bool:
    """Whether entries lie in memory in their order, from the start, so that places mean the same for all such."""
    return bool(tensor.layout is torch.strided and tensor.is_contiguous() and tensor.storage_offset() == 0)


class Pieces:
    """The parts that a contiguous tensor was made of.

    Args:
        parts: the place and the node of each part; parts do not overlap.

    Attributes:
        read: the place and the node of each view that showed a part, if relevance of inner layers is asked for.
    """

    def __init__(self, parts: dict[Place, Node]) -> None:
        self._parts = parts
        self.read: list[tuple[Place, Node]] = []
        self._labels: Tensor | None = None  # the number of the part that each entry belongs to; -1: of none
        self._numbers: dict[Place, int] = {}

    def at(self, where: Place) -> Node | None:
        """The node of the part that is at a place, if all of it is still there."""
        found = self._parts.get(where)
        if found is None or self._labels is None:
            return found
        return found if bool((self._shown(where) == self._numbers[where]).all()) else None

    def after(self, where: Place, node: Node | None, entries: int) -> "Pieces":
        """The parts after one of them was written; these are no longer known, so that nothing is copied."""
        new = Pieces(self._parts)
        new._labels, new._numbers = self._labels, self._numbers
        if new._labels is None:
            new._labels = torch.full((entries,), -1, dtype=torch.int32)
            for number, each in enumerate(self._parts):
                new._numbers[each] = number
                new._shown(each).fill_(number)
        self._parts, self._labels, self._numbers = {}, None, {}
        new._shown(where).fill_(number := len(new._numbers))
        new._parts.pop(where, None)
        new._numbers[where] = number
        if node is not None:
            new._parts[where] = node
        return new

    def _shown(self, where: Place) -> Tensor:
        assert self._labels is not None  # made before
        offset, dimensions = where
        return self._labels.as_strided([n for n, _ in dimensions], [step for _, step in dimensions], offset)


def note_parts(tape: "Tape", value: Tensor, views: Sequence[Tensor], nodes: Sequence[Node | None]) -> None:
    """Remember what a tensor was joined of.

    Args:
        tape: the tape.
        value: the joined tensor.
        views: of each part, the view that shows it.
        nodes: of each part; None for a constant.
    """
    if in_order(value):
        parts = {place(view): node for view, node in zip(views, nodes, strict=True) if node is not None}
        tape.node(value).pieces = Pieces(parts)


def note_written(tape: "Tape", base: Tensor, whole: Tensor, value: Tensor, where: Place) -> None:
    """Remember that a part of a tensor was written; `whole` is the tensor after that."""
    if in_order(base) and in_order(whole):
        below = tape.find(base)
        before = Pieces({}) if below is None or below.pieces is None else below.pieces
        tape.node(whole).pieces = before.after(where, tape.find(value), base.numel())


def read_back(tape: "Tape", tensor: Tensor, result: Any) -> None:
    """Let views of a joined tensor that show a part as it was written have the node of this part."""
    node = tape.find(tensor)
    if node is None or node.pieces is None or not in_order(tensor):
        return
    for view in result if isinstance(result, list | tuple) else [result]:
        if view.untyped_storage()._cdata != tensor.untyped_storage()._cdata:
            continue  # a copy
        if in_order(view) and view.numel() == tensor.numel():
            tape.node(view).pieces = node.pieces
        elif (part := node.pieces.at(place(view))) is not None:
            tape.move(view, part, UNMOVED if view.shape == part.shape else _reshaping(view.shape, part.shape))
            if tape.path.outputs:  # the joined tensor may be the output of such a layer
                node.pieces.read.append((place(view), tape.node(view)))


def with_parts(relevance: Tensor, read: Sequence[tuple[Place, Tensor | None]]) -> Tensor:
    """The relevance of a joined tensor, with that of the parts that were read back.

    Args:
        relevance: of the tensor as a whole.
        read: the place of each view that showed a part, and its relevance.
    """
    shown = [(where, part) for where, part in read if part is not None]
    if not shown:
        return relevance
    numbers = torch.arange(relevance.numel(), device=relevance.device)
    flat = relevance.flatten()
    for (offset, dimensions), part in shown:
        index = numbers.as_strided([n for n, _ in dimensions], [step for _, step in dimensions], offset)
        flat = flat.index_add(0, index.flatten(), part.flatten())
    return flat.view(relevance.shape)


def _reshaping(shape: torch.Size, back: torch.Size) -> Movement:
    return Movement(lambda part: part.reshape(shape), lambda part: part.reshape(back))
