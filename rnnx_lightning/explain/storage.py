"""Which tensors share memory."""

import torch
from torch import Tensor


def memory_of(tensor: Tensor) -> int:
    """A key for the memory of a tensor; of sparse and other layouts, for the tensor itself."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)
