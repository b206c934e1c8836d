"""Gradients of networks that overwrite what their gradient needs."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


class _Saved:
    """What autograd has saved of a tensor."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


class _CopyBeforeWriting(TorchDispatchMode):
    """Copies saved values before their memory is written to."""

    def __init__(self) -> None:
        super().__init__()
        self._in_memory: dict[int, list[_Saved]] = defaultdict(list)  # by address

    def save(self, tensor: Tensor) -> _Saved:
        """Keep a tensor, and with it its memory: no other tensor can be taken for it."""
        saved = _Saved(tensor)
        if tensor.layout is torch.strided:
            self._in_memory[tensor.untyped_storage().data_ptr()].append(saved)
        return saved

    def forget(self) -> None:
        """Let go of all that is saved."""
        self._in_memory.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        kwargs = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[place] if place < len(args) else kwargs.get(argument.name)
                for tensor in written if isinstance(written, list | tuple) else [written]:
                    self._copy(tensor)
        return func(*args, **kwargs)

    def _copy(self, tensor: Any) -> None:
        if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
            for saved in self._in_memory.pop(tensor.untyped_storage().data_ptr(), ()):
                saved.value = saved.value.clone()


def is_of_overwriting(error: RuntimeError) -> bool:
    """Whether torch says that a network has overwritten what its gradient needs."""
    return "modified by an inplace operation" in str(error)


@contextmanager
def overwriting_allowed() -> Iterator[None]:
    """A context in which a network may overwrite in place what its gradient needs, such as `x /= s`, s made of x.

    Forward and backward pass belong inside. `torch.autograd.graph.allow_mutation_on_saved_tensors` would not do:
    it takes a new tensor for an earlier one that was freed, if their addresses agree, and the gradient is wrong.
    """
    mode = _CopyBeforeWriting()
    with saved_tensors_hooks(mode.save, lambda saved: saved.value), mode:
        try:
            yield
        finally:
            mode.forget()
