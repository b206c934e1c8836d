"""What all explanation methods share: `relevance = Method(...)(model, x, target)`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.inputs import Bound, Inputs, batch_size, mapped, tensors_of
from rnnx_lightning.explain.isolation import isolated
from rnnx_lightning.explain.outputs import Target as Target
from rnnx_lightning.explain.outputs import explained_value


class Attributor(ABC):
    """Says how much each entry of an input had to do with a logit.

    The model is any `nn.Module`, in eval or in train mode. It is left as it was: weights, gradients, buffers,
    flags, hooks, the state that it keeps and the random state.
    """

    def __call__(self, model: nn.Module, x: Inputs, target: Target = None, **arguments: Any) -> Inputs:
        """Relevance of `x` for one output of each example.

        Args:
            model: the network.
            x: (B, ...) floating-point input, or int64 tokens (B, T), or a packed sequence. A tuple, a list or
                a dict of such is handed on as arguments.
            target: which output is explained. Of (B, K): (B,) int64 classes, or one for all; None: the
                greatest. Of (B, ...): a tuple of indices. Of (B,) and (B, 1): None. Of anything: a
                function from the model's output to (B,) numbers.
            arguments: what else the model takes, by keyword; not explained.

        Returns:
            Relevance, in `x`'s structure, of its shapes, type and device; of tokens one number each.

        Raises:
            ValueError: input, target or the model's output do not fit.
            UnexplainableError: the network does something that this method has no rule for.
        """
        batch_size(x)
        takes_x = isinstance(x, Tensor) or isinstance(model, Bound)  # a method that another one calls has it bound
        bound = model if takes_x and not arguments else Bound(model, arguments)
        with isolated(model, tensors_of(x)[0].device):
            return self._relevance(bound, mapped(lambda t: t.detach().clone(), x), target)

    @abstractmethod
    def _relevance(self, model: nn.Module, x: Any, target: Any) -> Any:
        """The method itself; `x` is a copy that it may do anything with, and `model(x)` runs the network."""


def explained_logit(logits: Any, x: Inputs, target: Target) -> tuple[Tensor, Tensor]:
    """Choose the explained logit of each example.

    Args:
        logits: the model's output.
        x: its input.
        target: see `Attributor.__call__`.

    Returns:
        The logits' values (B,), with graph, and the targets (B, 1).

    Raises:
        ValueError: the logits are not of shape (B, K), or a target is out of range.
    """
    value, index = explained_value(logits, batch_size(x), target)
    return value, torch.zeros(len(value), 1, dtype=torch.long, device=value.device) if index is None else index


def resolve_target(model: nn.Module, x: Inputs, target: Target) -> Any:
    """The explained outputs of `x` itself, for methods that also look at other inputs."""
    if target is not None:
        return target
    with torch.no_grad():
        _, index = explained_value(model(x), batch_size(x), None)
    return None if index is None else index.squeeze(1)


def as_tuple(names: Sequence[str] | str) -> tuple[str, ...]:
    """Layer names, given as one or several."""
    return (names,) if isinstance(names, str) else tuple(names)
