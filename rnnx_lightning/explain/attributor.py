"""What all explanation methods share: `relevance = Method(...)(model, x, target)`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.isolation import isolated

Target = Tensor | int | None


class Attributor(ABC):
    """Says how much each entry of an input had to do with a logit.

    The model is any `nn.Module` from (B, ...) to logits (B, K), in eval or in train mode. It is left as it was:
    weights, gradients, buffers, flags, hooks and the random state.
    """

    def __call__(self, model: nn.Module, x: Tensor, target: Target = None) -> Tensor:
        """Relevance of `x` for one logit of each example.

        Args:
            model: the network.
            x: (B, ...) floating-point input.
            target: (B,) int64 index of the explained logit, or one index for all; None: the greatest logit.

        Returns:
            Relevance, of `x`'s shape, type and device.

        Raises:
            ValueError: input, target or the model's output do not fit.
            UnexplainableError: the network does something that this method has no rule for.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2:
            kind = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must be a floating-point tensor (B, ...), got {kind}")
        with isolated(model, x.device):
            return self._relevance(model, x.detach().clone(), target)

    @abstractmethod
    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        """The method itself; `x` is a copy that it may do anything with."""


def explained_logit(logits: Tensor, x: Tensor, target: Target) -> tuple[Tensor, Tensor]:
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
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must give logits of shape ({len(x)}, classes), got {shape}")
    if target is None:
        index = logits.detach().argmax(dim=1)
    else:
        index = torch.as_tensor(target, device=logits.device)
        if index.is_floating_point() or index.dim() > 1 or (index.dim() == 1 and len(index) != len(x)):
            raise ValueError(f"target must be one class or (B,) = ({len(x)},) classes, got {tuple(index.shape)}")
        index = index.long().expand(len(x)).clone()  # one that was made in inference mode could not be saved
        outside = (index < 0) | (index >= logits.shape[1])
        if bool(outside.any()):
            wrong = int(index[outside][0])
            raise ValueError(f"target {wrong} is not among the classes 0 to {logits.shape[1] - 1}")
    index = index.unsqueeze(1)
    return logits.gather(1, index).squeeze(1), index


def input_gradient(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Gradient of the explained logit by the input, of `x`'s shape."""
    x = x.detach().requires_grad_()
    value, _ = explained_logit(model(x), x, target)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return gradient


def resolve_target(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """(B,) the explained logits of `x` itself, for methods that also look at other inputs."""
    with torch.no_grad():
        return explained_logit(model(x), x, target)[1].squeeze(1)


def as_tuple(names: Sequence[str] | str) -> tuple[str, ...]:
    """Layer names, given as one or several."""
    return (names,) if isinstance(names, str) else tuple(names)
