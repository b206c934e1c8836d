"""Which tensors share memory, and where in it they lie."""

from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def memory_of(tensor: Tensor) -> int:
    """A key for the memory of a tensor; of sparse and other layouts, for the tensor itself."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)


class ByMemory(dict[int, T]):
    """Values by the memory of tensors. As long as this lives, no other memory has a key of one that was put in."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[int] = []

    def put(self, memory: torch.UntypedStorage, value: T) -> None:
        """Set a value."""
        memory._weak_ref()
        self._held.append(memory._cdata)
        self[memory._cdata] = value

    def __del__(self) -> None:
        for key in self._held:
            torch.UntypedStorage._free_weak_ref(key)


def layout_of(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], int]:
    """Shape, strides and offset of a tensor within its memory."""
    return tensor.shape, tensor.stride(), int(tensor.storage_offset())
