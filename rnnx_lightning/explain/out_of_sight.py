"""Values that come from where no operation is seen.

An extension in C++, CUDA or Triton writes them to memory. It asks torch for this memory, or for zeros, which is
seen. So if an operation reads such memory to which none has written, or zeros that are none, then something else
has written there. Another tensor of the same values, such as `nn.Parameter(h)`, is known by its memory.
"""

from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnnx_lightning.explain.overwriting import ordinary_of, written_by
from rnnx_lightning.explain.refusals import EXTENSIONS, SHARED, UnexplainableError
from rnnx_lightning.explain.storage import layout_of, memory_of

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape

aten = torch.ops.aten


class Made(Enum):
    """What is special about the result of an operation on constants."""

    EMPTY = 0  # it has no values yet
    ZEROS = 1
    PARTS = 2  # they share memory, but torch counts them as tensors that do not


MAKES = dict.fromkeys(
    (
        aten.empty.memory_format,
        aten.empty_like.default,
        aten.empty_permuted.default,
        aten.empty_strided.default,
        aten.new_empty.default,
        aten.new_empty_strided.default,
    ),
    Made.EMPTY,
)
MAKES |= dict.fromkeys((aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default), Made.ZEROS)
MAKES |= dict.fromkeys((aten.unsafe_split.Tensor, aten.unsafe_split_with_sizes.default), Made.PARTS)
# Operations that give values to some entries, and read none.
PLACES = {
    aten.copy.default,
    aten.diagonal_scatter.default,
    aten.select_scatter.default,
    aten.slice_scatter.default,
    aten.index_copy.default,
    aten.index_fill.int_Scalar,
    aten.index_fill.int_Tensor,
    aten.index_put.default,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
    aten.masked_scatter.default,
    aten.scatter.src,
    aten.scatter.value,
}


def made(tape: "Tape", func: Any, result: Any) -> Any:
    """The result of an operation on constants; remember if it has no values yet, or zeros."""
    kind = MAKES.get(func)
    if kind is None:
        return result
    if kind is Made.PARTS:
        return [part.clone() for part in result]
    tape.unwritten.put(result.untyped_storage(), kind is Made.ZEROS)
    return result


def filled(tape: "Tape", func: Any, args: Any, kwargs: Any) -> None:
    """What an operation overwrites has values now."""
    for tensor in written_by(func, args, kwargs):
        tape.unwritten.pop(memory_of(tensor), None)


def hidden(tape: "Tape", func: Any, args: Any, kwargs: Any, tensor: Tensor) -> bool:
    """Whether a tensor without a node depends on the input; then it has one afterwards."""
    key = memory_of(tensor)
    if key in tape.unwritten:
        return unseen(tape, func, args, kwargs, tensor)
    if key not in tape.noted:
        return False
    first = tape.noted[key]()
    if first is None or _place(first) != _place(tensor):
        raise UnexplainableError(SHARED.format(tape.path))
    tape.mark(tensor, tape.node(first))  # the same values
    return True


def _place(tensor: Tensor) -> Any:
    return memory_of(tensor), tensor.dtype, layout_of(tensor)


def unseen(tape: "Tape", func: Any, args: Any, kwargs: Any, tensor: Tensor) -> bool:
    """Whether an operation reads a tensor that something else has written; then its relevance is refused."""
    zeros = tape.unwritten.get(memory_of(tensor))
    if zeros is None or func.is_view or func in tape.harmless or torch.Tag.inplace_view in func.tags:
        return False
    if func in PLACES and tensor is args[0]:
        return False
    if any(tensor is each for each in written_by(func, args, kwargs)) and not _reads(tape, func, args, tensor):
        del tape.unwritten[memory_of(tensor)]
        return False
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return False
    if zeros and not bool(tensor.any()):
        if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size():
            del tape.unwritten[memory_of(tensor)]  # the network's own zeros
        return False
    message = f"The network reads values{tape.path} that no operation has written. {EXTENSIONS}"
    tape.note(tensor, tape.unknown(message, tensor))
    return True


def _reads(tape: "Tape", func: Any, args: Any, tensor: Tensor) -> bool:
    """Whether an operation reads a tensor that it overwrites."""
    ordinary = ordinary_of(func)
    return tensor is args[0] and ordinary in tape.table and ordinary not in PLACES
