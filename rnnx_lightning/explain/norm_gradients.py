"""Gradients of batch norm and instance norm that are right for a batch of one."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

NORMS = (F.batch_norm, torch.batch_norm, F.instance_norm, torch.instance_norm)


def right_gradients_of_norms(model: nn.Module) -> AbstractContextManager[object]:
    """A context in which the gradients of a network's norms are right.

    torch (2.14, on the CPU) mixes up the entries of a single picture if it and its gradient lie in memory in
    different orders, as where a picture becomes tokens: `norm(x).flatten(2).transpose(1, 2)`.

    Args:
        model: the network.
    """
    return _InOneOrder() if any(isinstance(module, _NormBase) for module in model.modules()) else nullcontext()


class _InOneOrder(TorchFunctionMode):
    """Norms of a single picture read contiguous tensors, in both directions."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute one operation."""
        kwargs = dict(kwargs or {})
        if func not in NORMS:
            return func(*args, **kwargs)
        x, *rest = args or (kwargs.pop("input"),)
        if len(x) > 1 or x.dim() < 4:
            return func(x, *rest, **kwargs)
        value = func(x.contiguous(), *rest, **kwargs)
        if value.requires_grad:
            value.register_hook(_contiguous)
        return value


def _contiguous(gradient: Tensor | None) -> Tensor | None:
    """The gradient in order; where a gate is held constant, there is none."""
    return None if gradient is None else gradient.contiguous()
