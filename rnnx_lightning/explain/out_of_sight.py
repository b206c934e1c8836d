"""Values that an extension in C++, CUDA or Triton computes: it writes them where no operation is seen.

It asks torch for memory, which is seen. So if such memory is read before an operation has written to it, then
something else has.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnnx_lightning.explain.overwriting import ordinary_of, tensors_in, written_by
from rnnx_lightning.explain.refusals import EXTENSIONS

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape

aten = torch.ops.aten
NOTE = "_rnnx_unwritten"  # the attribute of a tensor without values
EMPTY = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_permuted.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}
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


def made_empty(tape: "Tape", tensor: Tensor) -> Tensor:
    """Remember that a new tensor has no values yet."""
    tape.any_empty = True
    setattr(tensor, NOTE, True)
    return tensor


def look_out(tape: "Tape", func: Any, args: Any, kwargs: Any) -> None:
    """Before an operation: note what it writes, and refuse relevance for what it reads if nothing was written."""
    if func.is_view or func in tape.harmless or torch.Tag.inplace_view in func.tags:
        return
    if tape.overwrites(func) and ((ordinary := ordinary_of(func)) not in tape.table or ordinary in PLACES):
        for tensor in written_by(func, args, kwargs):
            for whole in (tensor, tensor._base):
                if whole is not None:
                    whole.__dict__.pop(NOTE, None)
    for tensor in tensors_in((args, kwargs)):
        if tape.find(tensor) is None and _unwritten(tensor):
            unseen = f"The network reads values{tape.path} that no operation has written. {EXTENSIONS}"
            tape.note(tensor, tape.unknown(unseen, tensor))


def _unwritten(tensor: Tensor) -> bool:
    """Whether a tensor, or the one that it is a part of, has no values in sight."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return False
    return any(hasattr(whole, NOTE) for whole in (tensor, tensor._base) if whole is not None)
