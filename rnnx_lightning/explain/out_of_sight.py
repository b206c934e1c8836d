"""Values that an extension in C++, CUDA or Triton computes: it writes them where no operation is seen.

It asks torch for memory or for zeros, which is seen. So if an operation reads such memory to which none has
written, or zeros that are none, then something else has written there.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from rnnx_lightning.explain.overwriting import ordinary_of, written_by
from rnnx_lightning.explain.refusals import EXTENSIONS
from rnnx_lightning.explain.storage import memory_of

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape

aten = torch.ops.aten
# Operations that make tensors without values: whether these are zeros.
MAKES = dict.fromkeys(
    (
        aten.empty.memory_format,
        aten.empty_like.default,
        aten.empty_permuted.default,
        aten.empty_strided.default,
        aten.new_empty.default,
        aten.new_empty_strided.default,
    ),
    False,
) | dict.fromkeys((aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default), True)
# In-place operations that give values to some entries, and read none.
PLACES = {
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
    """The result of an operation; remember if it has no values yet, or zeros."""
    if (zeros := MAKES.get(func)) is not None:
        # While the memory is referred to, even weakly, no other has its key.
        tape.unwritten[memory_of(result)] = StorageWeakRef(result.untyped_storage()), zeros
    return result


def filled(tape: "Tape", func: Any, args: Any, kwargs: Any) -> None:
    """What an operation overwrites has values now."""
    for tensor in written_by(func, args, kwargs):
        tape.unwritten.pop(memory_of(tensor), None)


def unseen(tape: "Tape", func: Any, args: Any, kwargs: Any, tensor: Tensor) -> bool:
    """Whether an operation reads a tensor that something else has written; then its relevance is refused."""
    _, zeros = tape.unwritten.get(memory_of(tensor), (None, None))
    if zeros is None or func.is_view or func in tape.harmless or torch.Tag.inplace_view in func.tags:
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
