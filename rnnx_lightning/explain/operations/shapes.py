"""Operations that move, choose, repeat and join entries."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.comparisons import chooses, cuts_off, rectifies
from rnnx_lightning.explain.elementwise import is_zero
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.table import aten, overloads, records, register
from rnnx_lightning.explain.pairs import pair_of, paired
from rnnx_lightning.explain.pieces import note_parts
from rnnx_lightning.explain.rows import DETACHED, PASS, UNMOVED, Joining, Movement, transposed
from rnnx_lightning.explain.tape import Recorder, Tape

Undo = Callable[..., Callable[[Tensor], Tensor] | None]  # (func, tensor, args, kwargs) -> the way back


def moving(undo: Undo, pads: bool = False) -> Recorder:
    """A recorder for an operation that moves, chooses or repeats the entries of its first argument.

    Args:
        undo: a function (operation, first argument, other arguments, keyword arguments) that returns the function
            for the way back, such as `by_gradient`; it may return None if the operation gives a view.
        pads: whether the operation adds zeros.
    """

    def record(tape: Tape, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        value = func(tensor, *args, **kwargs)
        node = tape.find(tensor)
        if node is None:
            return tape.refused(func, value, "Only its first argument may depend on the input.", *args)

        def apply(part: Tensor) -> Tensor:
            if undo is by_shape:
                return part.reshape(shape)
            if undo is by_gradient and part.dtype is torch.bool:
                return func(part.float(), *args, **kwargs) != 0
            return func(part, *args, **kwargs)

        shape = value.shape
        if undo is by_shape and shape == tensor.shape:
            return tape.move(value, node, UNMOVED)
        return tape.move(value, node, Movement(apply, undo(func, tensor, args, kwargs), undo is by_shape), pads)

    record.__doc__ = "Entries are moved, chosen or repeated; relevance goes back to where they came from."
    return record


def by_gradient(func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Callable[[Tensor], Tensor]:
    """The way back is that of the gradient."""
    like = torch.empty(
        0, dtype=tensor.dtype if tensor.is_floating_point() else torch.float32, device=tensor.device
    ).expand(0)
    shape = tensor.shape

    def undo(part: Tensor) -> Tensor:
        source = like.new_zeros((), dtype=part.dtype).expand(shape)
        return transposed(lambda leaf: func(leaf, *args, **kwargs), source.contiguous(), part)

    return undo


def by_shape(func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Callable[[Tensor], Tensor]:
    """The way back restores the shape of the source."""
    shape = tensor.shape
    return lambda part: part.reshape(shape)


def by_permutation(func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Callable[[Tensor], Tensor]:
    """The way back is the inverse permutation."""
    dims = [d % tensor.dim() for d in args[0]]
    back = sorted(range(len(dims)), key=dims.__getitem__)
    return lambda part: part.permute(back)


def by_itself(func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Callable[[Tensor], Tensor]:
    """The operation is its own inverse."""
    return lambda part: func(part, *args, **kwargs)


def by_summing(func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Callable[[Tensor], Tensor]:
    """The way back adds up the copies."""
    shape = tensor.shape
    return lambda part: part.sum_to_size(shape)


def by_type(func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Callable[[Tensor], Tensor]:
    """The way back restores the dtype and device of the source."""
    dtype, device = tensor.dtype, tensor.device
    return lambda part: part.to(device=device, dtype=dtype if dtype.is_floating_point else part.dtype)


def by_scattering(func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Callable[[Tensor], Tensor]:
    """The way back scatters what was gathered."""
    shape, (dim, index) = tensor.shape, args
    return lambda part: part.new_zeros(shape).scatter_add(dim, index, part)


def by_view(func: Any, tensor: Tensor, args: Any, kwargs: Any) -> None:
    """The operation gives a view of some entries; the way back adds to them."""
    return


for _undo, _names in (
    (
        by_shape,
        "view.default _unsafe_view.default reshape.default unsqueeze.default squeeze.default squeeze.dim "
        "squeeze.dims _reshape_alias.default clone.default alias.default contiguous.default lift_fresh.default "
        "_reshape_copy.default resolve_neg.default",
    ),
    (by_permutation, "permute.default"),
    (by_itself, "t.default transpose.int flip.default"),
    (by_scattering, "gather.default"),
    (by_summing, "expand.default"),
    (by_view, "select.int slice.Tensor diagonal.default narrow.default"),
    (
        by_gradient,
        "roll.default repeat.default unfold.default take.default repeat_interleave.self_int "
        "reflection_pad1d.default reflection_pad2d.default reflection_pad3d.default replication_pad1d.default "
        "replication_pad2d.default replication_pad3d.default "
        "pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default rot90.default "
        "upsample_nearest1d.default upsample_nearest2d.default upsample_nearest3d.default upsample_nearest2d.vec "
        "_upsample_nearest_exact1d.default _upsample_nearest_exact2d.default",
    ),
):
    for _operation in overloads(_names):
        register(_operation, moving(_undo))
for _operation in overloads(
    "tril.default triu.default diag_embed.default max_unpool2d.default max_unpool3d.default im2col.default"
):
    register(_operation, moving(by_gradient, pads=True))


@records("detach.default")
def detach(tape: Tape, func: Any, tensor: Tensor) -> Tensor:
    """Relevance passes unchanged; a detached value that scales another signal gets none, as a constant does."""
    value, node = func(tensor), tape.node(tensor)
    tape.move(value, node, UNMOVED if node.pixels is None else DETACHED)
    if not node.gate and node.pixels is None:  # pixels are shifted and scaled as pixels
        made = tape.node(value)
        made.gate = made.magnitude = True
    return value


@records("_to_copy.default")
def copy(tape: Tape, func: Any, tensor: Tensor, **kwargs: Any) -> Tensor:
    """A change of memory layout, device or dtype; a rounded number, or a token, passes relevance unchanged."""
    value = func(tensor, **kwargs)
    node = tape.find(tensor)
    if node is None or value.dtype == torch.bool:
        return value
    if value.is_complex():
        return paired(tape, value, pair_of(tape, tensor))
    if not value.is_floating_point() or not tensor.is_floating_point():
        new = Node(PASS, (node,), value, pixels=node.pixels, gate=node.gate)
        new.magnitude = node.magnitude
        new.dtype = value.dtype if value.is_floating_point() else node.dtype
        return tape.note(value, new)
    dtype = kwargs.get("dtype") or tensor.dtype

    def apply(part: Tensor) -> Tensor:
        return part.to(device=value.device, dtype=dtype if part.is_floating_point() else part.dtype)

    return tape.move(value, node, Movement(apply, by_type(func, tensor, (), kwargs)))


@records("constant_pad_nd.default")
def pad(tape: Tape, func: Any, tensor: Tensor, widths: list[int], value: float = 0) -> Tensor:
    """Padding: the added entries are neither pixels nor features."""
    result = func(tensor, widths, value)
    node = tape.node(tensor)

    def apply(part: Tensor) -> Tensor:
        return func(part, widths, 0)

    movement = Movement(apply, lambda part: func(part, [-w for w in widths], 0))
    if not value:
        return tape.move(result, node, movement, padding=any(widths))
    inside = torch.ones_like(tensor, dtype=torch.bool)
    return fill(tape, tensor, ~apply(inside), value, result, apply)


@records("masked_fill.Scalar masked_fill.Tensor")
def masked_fill(tape: Tape, func: Any, tensor: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Entries are replaced by a constant."""
    if tape.find(tensor) is None or (isinstance(value, Tensor) and tape.find(value) is not None):
        return tape.record(aten.where.self, (mask, value, tensor), {})
    if cuts_off(tape, tensor, mask, value):
        return tape.record(aten.relu.default, (tensor,), {})
    shape = torch.broadcast_shapes(tensor.shape, mask.shape)
    moved = tape.record(aten.expand.default, (tensor, shape), {}) if shape != tensor.shape else tensor
    return fill(tape, moved, mask, value, func(tensor, mask, value), lambda part: part)


def fill(tape: Tape, tensor: Tensor, mask: Tensor, value: Any, result: Tensor, apply: Any) -> Tensor:
    """Record that the entries of a tensor under a mask are replaced by a constant."""
    node = tape.node(tensor)
    constant = torch.full_like(result, 0.0).masked_fill(mask, value)
    shape = tensor.shape

    def put(parts: Sequence[Any]) -> Tensor:
        one, other = parts
        one = torch.zeros_like(result) if one is None else apply(one)
        return torch.where(mask, torch.zeros_like(one) if other is None else other.to(one.dtype), one)

    def undo(part: Tensor) -> list[Tensor | None]:
        kept = part.masked_fill(mask, 0)
        return [kept if kept.shape == shape else transposed(apply, kept.new_zeros(shape), kept), None]

    return tape.join(result, [node, None], [tensor, constant], Joining(put, undo), put)


@records("where.self where.ScalarSelf where.ScalarOther")
def where(tape: Tape, func: Any, condition: Tensor, one: Any, two: Any) -> Tensor:
    """Entries are chosen from two tensors."""
    value = func(condition, one, two)
    for kept, other, above in ((one, two, True), (two, one, False)):
        if tape.find(other) is None and is_zero(other) and rectifies(tape, kept, condition, above):
            return tape.record(aten.relu.default, (kept,), {})
    read = chooses(tape, condition, one, two)
    if read is not None and read.shape == value.shape:
        return tape.note(value, Node(PASS, (read,), value))
    parts = [tape.record(aten.expand.default, (t, value.shape), {}) if isinstance(t, Tensor) else
    torch.full_like(value, t)
             for t in (one, two)]  # fmt: skip
    if tape.find(condition) is not None:
        return tape.refused(func, value, "Its condition must not depend on the input.", condition)
    nodes = [tape.find(part) for part in parts]

    def put(given: Sequence[Any]) -> Tensor:
        like = next(g for g in given if g is not None)
        first, second = (torch.zeros_like(like) if g is None else g for g in given)
        return torch.where(condition, first, second)

    def undo(part: Tensor) -> list[Tensor | None]:
        return [torch.where(condition, part, 0), torch.where(condition, 0, part)]

    return tape.join(value, nodes, parts, Joining(put, undo), put)


@records(
    "split.Tensor split_with_sizes.default unsafe_split.Tensor unsafe_split_with_sizes.default "
    "unsafe_chunk.default chunk.default"
)
def split(tape: Tape, func: Any, tensor: Tensor, sizes: Any, dim: int = 0) -> list[Tensor]:
    """A tensor is split into several."""
    values = func(tensor, sizes, dim)
    if "unsafe" in func._schema.name:  # these have no base, and may be overwritten
        values = [value.clone() for value in values]
    starts = [0]
    for value in values:
        starts.append(starts[-1] + value.shape[dim])
    return [_shown(tape, tensor, value, dim, start) for value, start in zip(values, starts, strict=False)]


def _shown(tape: Tape, tensor: Tensor, value: Tensor, dim: int, start: int) -> Tensor:
    node, length = tape.node(tensor), value.shape[dim]
    return tape.move(value, node, Movement(lambda part: part.narrow(dim, start, length)))


@records("unbind.int")
def unbind(tape: Tape, func: Any, tensor: Tensor, dim: int = 0) -> list[Tensor]:
    """A tensor is split into several."""
    node = tape.node(tensor)
    values = func(tensor, dim)
    return [tape.move(value, node, Movement(_selecting(dim, number))) for number, value in enumerate(values)]


def _selecting(dim: int, number: int) -> Callable[[Tensor], Tensor]:
    return lambda part: part.select(dim, number)


@records("cat.default stack.default")
def join(tape: Tape, func: Any, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors are concatenated or stacked."""
    tensors = [t for t in tensors if t.dim() != 1 or t.shape[0] or func is aten.stack.default]
    value = func(tensors, dim)
    if len(tensors) == 1 and func is aten.cat.default:
        return tape.stand_in(value, tape.record(aten.clone.default, (tensors[0],), {}))  # in the order of its own
    nodes = [tape.find(t) for t in tensors]

    def put(parts: Sequence[Any]) -> Tensor:
        like = next(p for p in parts if p is not None)
        return func([like.new_zeros(t.shape) if p is None else p for p, t in zip(parts, shapes, strict=True)], dim)

    shapes = [t.detach() for t in tensors]
    widths = [] if func is aten.stack.default else [t.shape[dim] for t in tensors]

    def undo(part: Tensor) -> Sequence[Tensor]:
        return part.unbind(dim) if func is aten.stack.default else part.split(widths, dim)

    tape.join(value, nodes, tensors, Joining(put, undo), put)
    note_parts(tape, value, undo(value), nodes)
    return value


@records("block_diag.default")
def block_diagonal(tape: Tape, func: Any, tensors: Sequence[Tensor]) -> Tensor:
    """Matrices along the diagonal of a larger one."""
    width, rows, before = sum(t.shape[-1] for t in tensors), [], 0
    for tensor in tensors:
        matrix = tensor if tensor.dim() == 2 else tape.record(aten.view.default, (tensor, [1, tensor.numel()]), {})
        beside = [before, width - before - matrix.shape[1]]
        rows.append(tape.record(aten.constant_pad_nd.default, (matrix, beside), {}))
        before += matrix.shape[1]
    return tape.record(aten.cat.default, (rows,), {})


@records("masked_select.default")
def masked_select(tape: Tape, func: Any, tensor: Tensor, mask: Tensor) -> Tensor:
    """The entries under a mask."""
    node = tape.node(tensor)
    return tape.move(
        func(tensor, mask), node, Movement(lambda part: func(part, mask), by_gradient(func, tensor, (mask,), {}))
    )
