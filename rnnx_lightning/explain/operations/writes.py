"""Operations that write one tensor into another, or read a tensor through a view of its memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.operations.table import overloads, records, register
from rnnx_lightning.explain.overwriting import copied, laid_out, places, written
from rnnx_lightning.explain.rows import Joining, Movement
from rnnx_lightning.explain.tape import Recorder, Tape


def writing(places: int) -> Recorder:
    """A recorder for an operation that writes one tensor into another.

    Args:
        places: position of the argument that is written. The first argument is written into; those in between say
            where.
    """

    def record(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        value = func(*args, **kwargs)
        tensor, source = args[0], args[places]
        if not isinstance(source, Tensor):
            source = torch.full_like(value, source).flatten()[:1].squeeze() if value.numel() else value
        nodes = [tape.find(tensor), tape.find(source)]
        like = [tensor.detach(), source.detach()]

        def put(parts: Sequence[Any]) -> Tensor:
            given = next(p for p in parts if p is not None)
            one, two = (
                torch.zeros(t.shape, dtype=given.dtype, device=given.device) if p is None else p
                for p, t in zip(parts, like, strict=True)
            )
            new = list(args)
            new[0], new[places] = one, two if isinstance(args[places], Tensor) else 0
            return func(*new, **kwargs)

        def undo(part: Tensor) -> Sequence[Tensor | None]:
            create = torch.is_grad_enabled()
            with torch.enable_grad():
                leaves = [t.to(part.dtype).clone().requires_grad_() for t in like]
                return torch.autograd.grad(put(leaves), leaves, part, create_graph=create, allow_unused=True)

        return tape.join(value, nodes, [tensor, source], Joining(put, undo), put)

    record.__doc__ = "A tensor is written into another; relevance goes back to where each entry came from."
    return record


for _place, _names in (
    (1, "slice_scatter.default select_scatter.default diagonal_scatter.default"),
    (2, "masked_scatter.default"),
    (3, "scatter.src scatter.value index_copy.default index_fill.int_Scalar index_fill.int_Tensor"),
):
    for _operation in overloads(_names):
        register(_operation, writing(_place))


@records("copy.default")
def copy_into(tape: Tape, func: Any, tensor: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """A tensor with the shape and type of another one."""
    value = func(tensor, source)
    return value if tape.find(source) is None else laid_out(tape, copied(tape, tensor, source), value.stride())


@records("as_strided.default")
def as_strided(
    tape: Tape,
    func: Any,
    tensor: Tensor,
    size: list[int],
    stride: list[int],
    offset: int | None = None,
) -> Tensor:
    """Entries are read through a view of the memory."""
    value = func(tensor, size, stride, offset)
    node, shape = tape.node(tensor), tensor.shape
    start = int(tensor.storage_offset() if offset is None else offset)
    index = places(tensor, torch.Size(size), tuple(stride), start)
    if bool((index < 0).any()):
        return tape.refused(func, value, "It reads memory outside of the tensor.", tensor)

    def undo(part: Tensor) -> Tensor:
        whole = part.new_zeros(shape.numel()).index_add(0, index.flatten(), part.reshape(-1))
        return whole.view(shape)

    return tape.move(value, node, Movement(lambda part: part.take(index), undo))


@records("as_strided_scatter.default")
def write_view(
    tape: Tape,
    func: Any,
    base: Tensor,
    value: Tensor,
    size: list[int],
    stride: list[int],
    offset: int | None = None,
) -> Tensor:
    """A tensor is written to a view of another one's memory."""
    start = int(base.storage_offset() if offset is None else offset)
    return written(tape, base, value, torch.Size(size), tuple(stride), start)
