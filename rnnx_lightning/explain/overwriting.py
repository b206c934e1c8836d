"""In-place operations: the new value replaces the tensor, and views of its old memory are updated."""

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rnnx_lightning.explain.comparisons import also
from rnnx_lightning.explain.linear import held
from rnnx_lightning.explain.pairs import geometry_of_pair, pair_of, paired
from rnnx_lightning.explain.pieces import geometry as geometry_of
from rnnx_lightning.explain.pieces import note_written
from rnnx_lightning.explain.refusals import UnexplainableError, name_of
from rnnx_lightning.explain.rows import Joining
from rnnx_lightning.explain.storage import layout_of, memory_of

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape

aten = torch.ops.aten
WITHOUT_OUT = "Leave it out, or give a tensor of this shape."
WITHOUT_IN_PLACE = "Use its out-of-place form (for example nn.ReLU(inplace=False))."


def run(record: Callable[[Any, Any, Any], Any], func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation by `record`. With `out=`, its ordinary form, whose result is copied to the given tensor.

    Raises:
        UnexplainableError: a tensor that is given has another shape than the result.
    """
    if not (kwargs and func._schema.is_mutable and (names := _outputs(func)) and (ordinary := _without_out(func))):
        return record(func, args, kwargs)
    made = record(ordinary, args, {name: value for name, value in kwargs.items() if name not in names})
    given = [kwargs[name] for name in names]
    for tensor, value in zip(given, made if isinstance(made, list | tuple) else (made,), strict=True):
        if tensor.shape != value.shape:
            raise UnexplainableError(
                f"The operation {name_of(func)!r} is given out= of shape {tuple(tensor.shape)}, "
                f"but its result has {tuple(value.shape)}. {WITHOUT_OUT}"
            )
        record(aten.copy_.default, (tensor, value), {})
    return given[0] if len(given) == 1 else tuple(given)


def _outputs(func: Any) -> list[str]:
    return [argument.name for argument in func._schema.arguments if argument.is_out]


@cache
def _without_out(func: Any) -> Any:
    """The form of an operation that returns a new tensor; None if there is none."""
    taken = [(a.name, str(a.type)) for a in func._schema.arguments if not a.is_out]
    forms = (getattr(func.overloadpacket, name) for name in func.overloadpacket.overloads())
    return next((form for form in forms if [(a.name, str(a.type)) for a in form._schema.arguments] == taken), None)


def overwrite(tape: "Tape", func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
    """Run the out-of-place form of an operation, and replace its first argument by the result.

    Args:
        tape: the tape.
        func: the in-place operation.
        tensor: its first argument, whose memory may have been replaced before.
        args: all arguments, with their current values.
        kwargs: keyword arguments.
    """
    value = overwritten(tape, func, args, kwargs)
    if memory_of(value) == memory_of(tensor):  # its shape changed, and no memory
        node = tape.find(value)
        tensor.data = value.detach()
        tape.mark(tensor, node)
        return tensor
    shape, stride, offset = layout_of(tensor)
    replaced = tape.retired.get(memory_of(tensor))
    if replaced is not None:
        base, old = replaced
        start = int(old.storage_offset())
    elif tensor._base is not None:
        base, start = tensor._base, 0
    elif tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size():
        raise UnexplainableError(
            f"The operation {name_of(func)!r}{tape.path} overwrites a part of an unknown tensor. "
            f"{WITHOUT_IN_PLACE}"
        )
    else:
        _replace(tape, tensor, value)
        return tensor
    if tensor.is_conj() or tensor.is_neg():
        raise UnexplainableError(
            f"The operation {name_of(func)!r}{tape.path} overwrites conjugates. {WITHOUT_IN_PLACE}"
        )
    node = tape.find(value)
    if base.is_complex() is tensor.is_complex():
        place: list[Any] = [shape, stride, offset - start]
        _replace(tape, base, written(tape, base, value, *place))
        tensor.data = base.detach().as_strided(*place)
    elif base.is_complex():
        pair, *place = _across(tape, base, tensor, start)
        pair = written(tape, pair, value, *place)
        _replace(tape, base, tape.record(aten.view_as_complex.default, (pair,), {}))
        tensor.data = torch.view_as_real(base.detach()).as_strided(shape, stride, offset - 2 * start)
    else:
        _, *place = _across(tape, base, tensor, start)
        _replace(tape, base, written(tape, base, pair_of(tape, value), *place))
        tensor.data = torch.view_as_complex(base.detach().as_strided(*place))
    tape.mark(tensor, node)
    return tensor


def overwritten(tape: "Tape", func: Any, args: Any, kwargs: Any) -> Tensor:
    """The value that an operation writes to its first argument, as a new tensor.

    Raises:
        UnexplainableError: the operation has no out-of-place form.
    """
    value: Tensor
    tensor, *others = args
    if not isinstance(tensor, Tensor):
        raise UnexplainableError(
            f"The operation {name_of(func)!r}{tape.path} overwrites several tensors. {WITHOUT_IN_PLACE}"
        )
    ordinary = ordinary_of(func)
    if ordinary is None and tape.find(tensor) is None and all(tape.find(other) is None for other in others):
        value = tensor.clone()
        func(value, *others, **kwargs)
        return value
    if ordinary is None:
        raise UnexplainableError(
            f"The operation {name_of(func)!r}{tape.path} overwrites a tensor. {WITHOUT_IN_PLACE}"
        )
    if ordinary is aten.copy.default or func is aten.fill_.Tensor:
        return copied(tape, tensor, others[0])
    if func in (aten.zero_.default, aten.fill_.Scalar):
        return torch.full_like(tensor, others[0] if others else 0)
    if ordinary is aten.sigmoid.default and (node := tape.find(tensor)) is not None:
        copy = tensor.clone()  # it may be the network's last operation, whose argument is explained
        tape.mark(copy, node)
        args = (copy, *others)
    value = tape.record(ordinary, args, kwargs)
    return value


def copied(tape: "Tape", tensor: Tensor, source: Tensor) -> Tensor:
    """The source with the shape and dtype of the tensor."""
    moved: Tensor = tape.record(aten.expand.default, (source, tensor.shape), {})
    if moved.dtype != tensor.dtype or moved.device != tensor.device:
        moved = tape.record(aten._to_copy.default, (moved,), {"dtype": tensor.dtype, "device": tensor.device})
    value: Tensor = tape.record(aten.clone.default, (moved,), {})
    return value


def _replace(tape: "Tape", tensor: Tensor, value: Tensor) -> None:
    """Give a tensor a new value in new memory; other tensors keep the old memory."""
    old = tensor.detach()
    tape.retired[memory_of(tensor)] = (tensor, old)
    if value.shape == tensor.shape:
        value = laid_out(tape, value, tensor.stride())
    node = tape.find(value)
    tensor.data = value
    tape.mark(tensor, node)


def laid_out(tape: "Tape", value: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The same value in memory with the given strides."""
    if value.stride() == stride:
        return value
    laid = torch.empty_strided(value.shape, stride, dtype=value.dtype, device=value.device).copy_(value)
    tape.mark(laid, tape.find(value))
    return laid


def written(tape: "Tape", base: Tensor, value: Tensor, *geometry: Any) -> Tensor:
    """The base of a view after `value` was written to the view's entries."""
    below, above = tape.find(base), tape.find(value)
    if base.is_complex() and not (below is None and above is None):
        return _written_pair(tape, base, value, *geometry)
    shape, inner, layout = base.shape, value.shape, (base.stride(), base.storage_offset())
    index = cache(partial(places, held(base), *geometry))

    def as_base(part: Tensor) -> bool:
        return (part.stride(), part.storage_offset()) == layout and not torch.is_grad_enabled()

    def put(one: Tensor, other: Tensor) -> Tensor:
        if as_base(one):
            return torch.as_strided_scatter(one, other, *geometry)
        return one.reshape(-1).index_copy(0, index().flatten(), other.reshape(-1)).view(shape)

    def apply(parts: Any) -> Tensor:
        one, other = parts
        like = other if one is None else one
        return put(
            like.new_zeros(shape) if one is None else one, like.new_zeros(inner) if other is None else other
        )

    def undo(part: Tensor) -> list[Tensor | None]:
        return [
            put(part, part.new_zeros(inner)),
            part.as_strided(*geometry) if as_base(part) else part.take(index()),
        ]

    whole = put(held(base), held(value))
    if below is None and above is None:
        return whole
    tape.join(whole, [below, above], [base, value], Joining(apply, undo), apply)
    note_written(tape, base, whole, value, geometry_of(*geometry))
    return whole


def _written_pair(tape: "Tape", base: Tensor, value: Tensor, *geometry: Any) -> Tensor:
    """The same of complex numbers."""
    pair, *inside = pair_of_view(tape, base, *geometry)
    whole = written(tape, pair, pair_of(tape, value), *inside)
    return paired(tape, torch.complex(whole[..., 0], whole[..., 1]), whole)


def pair_of_view(tape: "Tape", base: Tensor, size: Any, stride: Any, offset: int) -> tuple[Tensor, Any, Any, int]:
    """The pair of a complex tensor, in the same order in memory, and where the pairs of a view of it lie there."""
    layout = geometry_of_pair(base.shape, base.stride(), 0)[1]
    pair = laid_out(tape, pair_of(tape, base), layout)
    size, stride, start = geometry_of_pair(size, stride, offset - int(base.storage_offset()))
    return pair, size, stride, start + int(pair.storage_offset())


def _across(tape: "Tape", base: Tensor, view: Tensor, start: int) -> tuple[Tensor, Any, Any, int]:
    """The memory of complex numbers as real ones, and where a real view lies there; or a complex view of pairs.

    `start` is where the base began in the memory that the view shows.
    """
    size, stride, offset = layout_of(view)
    if base.is_complex():
        pair, *_ = pair_of_view(tape, base, *layout_of(base))
        return pair, size, stride, offset - 2 * start + int(pair.storage_offset())
    size, stride, offset = geometry_of_pair(size, stride, offset)
    return base, size, stride, offset - start


def places(base: Tensor, size: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
    """Flat indices of the entries of a tensor that a view of its memory shows; -1 where it shows none.

    Indices are used because other tensors of the same shape (bounds, relevance) may have other strides.
    """
    index = torch.tensor(offset - base.storage_offset(), device=base.device)
    for length, step in zip(size, stride, strict=True):
        index = index.unsqueeze(-1) + step * torch.arange(length, device=base.device)
    extent = 1 + sum((length - 1) * step for length, step in zip(base.shape, base.stride(), strict=True))
    inside = (index >= 0) & (index < extent)
    if not base.is_contiguous():
        order = torch.full((extent,), -1, device=base.device)
        order.as_strided(base.shape, base.stride(), 0).copy_(
            torch.arange(base.numel(), device=base.device).view(base.shape)
        )
        index = order[index.clamp(0, extent - 1)]
    return torch.where(inside, index, -1)


def current(tape: "Tape", argument: Any) -> Any:
    """The current value of an argument, if it is a view of memory that was replaced."""
    if isinstance(argument, list | tuple):
        return (
            type(argument)([current(tape, a) for a in argument]) if type(argument) in (list, tuple) else argument
        )
    if not isinstance(argument, Tensor) or argument.layout is not torch.strided:
        return argument
    key = memory_of(argument)
    found = tape.retired.get(key)
    if found is None:
        return argument
    base, old = found
    if base.is_complex() is argument.is_complex():
        size, stride, offset = layout_of(argument)
        view = tape.record(aten.as_strided.default, (base, size, stride, offset - int(old.storage_offset())), {})
    else:
        view = tape.record(aten.as_strided.default, _across(tape, base, argument, int(old.storage_offset())), {})
        view = view if base.is_complex() else tape.record(aten.view_as_complex.default, (view,), {})
    if argument.is_conj() or argument.is_neg():  # the imaginary part of conjugates is negated
        view = tape.record((aten._conj if argument.is_conj() else aten.neg).default, (view,), {})
    return view


def alias(tape: "Tape", argument: Any) -> Any:
    """An argument as an operation may keep it: a constant stays as it is when the network overwrites its own."""
    if type(argument) in (list, tuple):
        return type(argument)([alias(tape, a) for a in argument])
    if not isinstance(argument, Tensor) or argument.layout is not torch.strided or tape.find(argument) is not None:
        return argument
    if torch.is_grad_enabled():  # nothing is overwritten in place; one alias, as parts of weights are cached by it
        if id(argument) not in tape.aliases:
            tape.aliases[id(argument)] = argument, also(argument, held(argument))
        return tape.aliases[id(argument)][1]
    kept = tape.read[memory_of(argument)] = also(argument, held(argument))
    return kept


def was_read(tape: "Tape", tensor: Any) -> bool:
    """Whether an operation may still need the memory of a constant."""
    return isinstance(tensor, Tensor) and memory_of(tensor) in tape.read


def tensors_in(values: Any) -> list[Tensor]:
    """All tensors in a structure."""
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


def written_by(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation overwrites."""
    if not func._schema.is_mutable:
        return []
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    marked = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return tensors_in([named[name] for name in marked if name in named])


def ordinary_of(func: Any) -> Any:
    """The out-of-place form of an in-place operation; None if there is none."""
    name = func._schema.name.partition("::")[2]
    if name == "copy_":
        return aten.copy.default
    if name in ("zero_", "fill_"):
        return func
    if name == "transpose_":
        return aten.transpose.int
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    taken = [str(argument.type) for argument in func._schema.arguments]
    for overload in (func._overloadname, f"Tensor_{func._overloadname}", "Tensor"):
        ordinary = getattr(packet, overload, None)
        if ordinary is not None and taken == [str(a.type) for a in ordinary._schema.arguments[: len(taken)]]:
            return ordinary
    return None
