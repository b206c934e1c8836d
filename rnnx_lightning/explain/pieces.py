"""Parts of a joined tensor that are read back: `h, c = state.chunk(2)` after `state = torch.cat([h, c])`.

A part that is read as it was written, or some entries of one part, have the relevance that they have without the
tensor in between. Otherwise a memory cell that is kept in one tensor with a hidden state, or in a buffer, would
not be one sum over time, and a gate in one tensor with signals would be a signal.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import UNMOVED, Movement
from rnnx_lightning.explain.storage import layout_of, memory_of

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape

Place = tuple[int, tuple[tuple[int, int], ...]]  # offset, and length and stride of all dimensions longer than 1


def place(view: Tensor) -> Place:
    """Where a view lies in its memory."""
    return geometry(*layout_of(view))


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
        joined: the tensor.

    Attributes:
        read: the place and the node of each view that showed a part, if relevance of inner layers is asked for.
    """

    def __init__(self, parts: dict[Place, Node], joined: Tensor) -> None:
        self._parts, self._entries = parts, joined.numel()
        self._memory = StorageWeakRef(joined.untyped_storage())  # as long as this lives, no other has its address
        self.read: list[tuple[Place, Node]] = []
        self._labels: Tensor | None = None  # the number of the part that each entry belongs to; -1: of none
        self._numbers: dict[Place, int] = {}

    def places(self, tensor: Tensor) -> bool:
        """Whether places in a tensor's memory are places here; one that stands in for it may have other memory."""
        whole = in_order(tensor) and tensor.numel() == self._entries
        return whole or bool(memory_of(tensor) == self._memory.cdata)

    def at(self, where: Place) -> Node | None:
        """The node of the part that is at a place, if all of it is still there."""
        found = self._parts.get(where)
        if found is None or self._labels is None:
            return found
        return found if bool((self._shown(where) == self._numbers[where]).all()) else None

    def around(self, where: Place) -> tuple[Place, Node] | None:
        """The place and the node of the part that all entries at a place are of; None if there is no such part."""
        self._label()
        shown = self._shown(where)
        number = int(shown.flatten()[0])
        found = next((each for each in self._parts.items() if self._numbers[each[0]] == number), None)
        return found if found is not None and bool((shown == number).all()) else None

    def after(self, where: Place, node: Node | None, whole: Tensor) -> "Pieces":
        """The parts after one of them was written; these are no longer known, so that nothing is copied."""
        new = Pieces(self._parts, whole)
        new._labels, new._numbers = self._labels, self._numbers
        new._label()
        self._parts, self._labels, self._numbers = {}, None, {}
        new._shown(where).fill_(number := len(new._numbers))
        new._parts.pop(where, None)
        new._numbers[where] = number
        if node is not None:
            new._parts[where] = node
        return new

    def _label(self) -> None:
        if self._labels is None:
            self._labels = torch.full((self._entries,), -1, dtype=torch.int32)
            for number, each in enumerate(self._parts):
                self._numbers[each] = number
                self._shown(each).fill_(number)

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
        tape.node(value).pieces = Pieces(parts, value)


def note_written(tape: "Tape", base: Tensor, whole: Tensor, value: Tensor, where: Place) -> None:
    """Remember that a part of a tensor was written; `whole` is the tensor after that."""
    if in_order(base) and in_order(whole):
        below = tape.find(base)
        before = below.pieces if below is not None else None
        before = before or Pieces({}, base)
        tape.node(whole).pieces = before.after(where, tape.find(value), whole)


def read_back(tape: "Tape", tensor: Tensor, result: Any) -> None:
    """Let views of a joined tensor that show a part as it was written have the node of this part."""
    node = tape.find(tensor)
    if node is None or node.pieces is None or not node.pieces.places(tensor):
        return
    for view in result if isinstance(result, list | tuple) else [result]:
        if view.dtype != tensor.dtype or memory_of(view) != memory_of(tensor):
            continue  # a copy, or pairs as complex numbers
        whole = in_order(view) and view.numel() == tensor.numel()
        if whole or (found := _part(node.pieces, view)) is None:
            tape.node(view).pieces = node.pieces
        else:
            tape.move(view, *found)
            if tape.path.outputs:  # the joined tensor may be the output of such a layer
                node.pieces.read.append((place(view), tape.node(view)))


def _part(pieces: Pieces, view: Tensor) -> tuple[Node, Movement] | None:
    """The node of the part that a view shows, and how its entries come to those of the view."""
    where = place(view)
    if (part := pieces.at(where)) is not None:
        return part, UNMOVED if view.shape == part.shape else _reshaping(view.shape, part.shape)
    around = pieces.around(where) if view.numel() else None
    if around is None or [n for n in around[1].shape if n != 1] != [n for n, _ in around[0][1]]:
        return None
    cut = _cut(where, around[0], view.shape)
    return None if cut is None else (around[1], Movement(cut))


def _cut(where: Place, part: Place, shape: torch.Size) -> Callable[[Tensor], Tensor] | None:
    """How a view is cut out of a part, one slice along each dimension; None if it is not."""
    (offset, shown), (start, lengths) = where, part
    strides = [step for _, step in lengths]
    rest, slices, order = offset - start, [slice(0)] * len(strides), []
    for d in sorted(range(len(strides)), key=lambda d: -strides[d]):
        first, rest = divmod(rest, strides[d])
        slices[d] = slice(first, first + 1)
    for n, step in shown:
        along = [d for d, stride in enumerate(strides) if 0 < stride <= step and step % stride == 0]
        d = max(along, key=lambda d: strides[d], default=-1)
        if d < 0 or d in order:
            return None
        every = step // strides[d]
        slices[d] = slice(slices[d].start, slices[d].start + (n - 1) * every + 1, every)
        order.append(d)
    if rest or any(s.stop > n for s, (n, _) in zip(slices, lengths, strict=True)):
        return None
    order += [d for d in range(len(strides)) if d not in order]
    sizes = [n for n, _ in lengths]
    return lambda entries: entries.reshape(sizes)[tuple(slices)].permute(order).reshape(shape)


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
