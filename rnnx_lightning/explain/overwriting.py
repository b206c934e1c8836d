"""Operations that overwrite a tensor: what they write takes its place, and views of the old memory follow."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnnx_lightning.explain.refusals import UnexplainableError, name_of
from rnnx_lightning.explain.rows import Joining

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape

aten = torch.ops.aten
WITHOUT_IN_PLACE = "Use its ordinary form (for example nn.ReLU(inplace=False))."


def overwrite(tape: "Tape", func: Any, args: Any, kwargs: Any) -> Any:
    """The ordinary form of an operation, whose result takes the place of the first argument."""
    tensor, *others = args
    ordinary = _ordinary(func)
    if ordinary is None:
        raise UnexplainableError(
            f"The operation {name_of(func)!r}{tape.path} overwrites a tensor. {WITHOUT_IN_PLACE}"
        )
    if ordinary is aten.copy.default:
        value = _copied(tape, tensor, others[0])
    elif func in (aten.zero_.default, aten.fill_.Scalar, aten.fill_.Tensor):
        value = torch.full_like(tensor, float(others[0]) if others else 0.0)
    else:
        value = tape.record(ordinary, args, kwargs)
    base = tensor._base
    if base is None:
        _replace(tape, tensor, value)
        return tensor
    shape, stride, offset = tensor.shape, tensor.stride(), tensor.storage_offset()
    whole = _written(tape, base, value, shape, stride, offset)
    _replace(tape, base, whole)
    node = tape.find(value)
    tensor.data = base.detach().as_strided(shape, stride, offset)
    tape.mark(tensor, node)
    return tensor


def _copied(tape: "Tape", tensor: Tensor, source: Tensor) -> Tensor:
    """The source, of shape and type of the tensor."""
    moved: Tensor = tape.record(aten.expand.default, (source, tensor.shape), {})
    if moved.dtype != tensor.dtype or moved.device != tensor.device:
        moved = tape.record(aten._to_copy.default, (moved,), {"dtype": tensor.dtype, "device": tensor.device})
    value: Tensor = tape.record(aten.clone.default, (moved,), {})
    return value


def _replace(tape: "Tape", tensor: Tensor, value: Tensor) -> None:
    """Let a tensor be another one; who holds the old memory keeps it."""
    old = tensor.detach()
    tape.retired[tensor.untyped_storage()._cdata] = (tensor, old)
    if value.shape == tensor.shape and value.stride() != tensor.stride():
        laid = torch.empty_strided(tensor.shape, tensor.stride(), dtype=value.dtype, device=value.device)
        node = tape.find(value)
        value = laid.copy_(value)
        tape.mark(value, node)
    node = tape.find(value)
    tensor.data = value
    tape.mark(tensor, node)


def _written(tape: "Tape", base: Tensor, value: Tensor, *geometry: Any) -> Tensor:
    """The base of a view after `value` was written where the view lies."""
    whole = torch.as_strided_scatter(base.detach(), value.detach(), *geometry)
    below, above = tape.find(base), tape.find(value)

    def apply(parts: Any) -> Tensor:
        one, other = parts
        one = torch.zeros_like(whole) if one is None else one.contiguous()
        other = torch.zeros(geometry[0], dtype=one.dtype, device=one.device) if other is None else other
        return torch.as_strided_scatter(one, other, *geometry)

    def undo(part: Tensor) -> list[Tensor | None]:
        part = part.contiguous() if part.stride() != whole.stride() else part
        rest = None
        if below is not None:
            rest = torch.as_strided_scatter(part, part.new_zeros(geometry[0]), *geometry)
        return [rest, part.as_strided(*geometry)]

    return tape.join(whole, [below, above], [base, value], Joining(apply, undo), lambda parts: apply(parts))


def current(tape: "Tape", argument: Any) -> Any:
    """A view of memory that has been replaced, as it is now."""
    if isinstance(argument, list | tuple):
        return (
            type(argument)([current(tape, a) for a in argument]) if type(argument) in (list, tuple) else argument
        )
    if not isinstance(argument, Tensor) or argument.layout is not torch.strided:
        return argument
    key = argument.untyped_storage()._cdata
    found = tape.retired.get(key)
    if found is None:
        return argument
    base, old = found
    geometry = (argument.shape, argument.stride(), argument.storage_offset() - old.storage_offset())
    return tape.record(aten.as_strided.default, (base, *geometry), {})


def _ordinary(func: Any) -> Any:
    """The form of an in-place operation that gives a new tensor; None if there is none."""
    name = func._schema.name.partition("::")[2]
    if name == "copy_":
        return aten.copy.default
    if name in ("zero_", "fill_"):
        return func
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, func._overloadname, None) if packet is not None else None
