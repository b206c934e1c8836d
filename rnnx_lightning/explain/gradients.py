"""Methods that look at the gradient of the logit by the input."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from rnnx_lightning.explain.attributor import Attributor, Target, explained_logit, input_gradient, resolve_target
from rnnx_lightning.explain.tracing import UnexplainableError

_FUSED_RELU = 0  # the mode of fused recurrent layers with ReLU; tanh, LSTM and GRU come after


class Sensitivity(Attributor):
    """Sensitivity analysis: R = (d z_y / d x)^2 [SVZ13]."""

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        return input_gradient(model, x, target).square()


class GradientTimesInput(Attributor):
    """R = x * d z_y / d x; for a ReLU network without biases the parts of z_y."""

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        return x * input_gradient(model, x, target)


class GuidedBackprop(Attributor):
    """The square of the gradient when ReLU passes only positive gradients of active units [SDBR15].

    Raises:
        UnexplainableError: ReLUs are out of reach, or may be: inside compiled code, an autograd function of the
            network's own, or an `nn.RNN` that runs fused on a GPU.
    """

    def __init__(self, gates: str = "free") -> None:
        self.gates = gates

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        x.requires_grad_()
        with _ConstantSigmoids() if self.gates == "constant" else nullcontext():
            value, _ = explained_logit(model(x), x, target)
        nodes = list(_graph(value))
        if any(type(node).__name__ == "CopySlices" for node in nodes):
            # Something was written into part of a tensor. Was it a ReLU, the graph does not show it.
            with _NoReLUInPlace():
                value, _ = explained_logit(model(x), x, target)
            nodes = list(_graph(value))
        for node in nodes:
            _guide(node)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return gradient.square()


class IntegratedGradients(Attributor):
    """(x - baseline) times the mean gradient on the way from `baseline` to x (Sundararajan et al., 2017).

    Args:
        baseline: value of all pixels where the way begins (background is -1).
        steps: points on the way, at the middle of equal parts.

    Raises:
        ValueError: there are no steps.
    """

    def __init__(self, baseline: float = -1.0, steps: int = 32) -> None:
        if steps < 1:
            raise ValueError(f"steps={steps} must be at least 1")
        self.baseline = baseline
        self.steps = steps

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        target = resolve_target(model, x, target)
        total = torch.zeros_like(x)
        for step in range(self.steps):  # one after the other: memory stays that of one explanation
            point = torch.lerp(torch.full_like(x, self.baseline), x, (step + 0.5) / self.steps)
            total += input_gradient(model, point, target)
        return (x - self.baseline) * total / self.steps


class SmoothGrad(Attributor):
    """The mean of another method over noisy copies of the input (Smilkov et al., 2017).

    Args:
        method: any attributor; a gradient method as published.
        samples: number of noisy copies.
        noise: standard deviation of the noise, in units of the input.
        seed: of the noise.

    Raises:
        ValueError: there are no samples, or the noise is negative.
    """

    def __init__(
        self, method: Attributor | None = None, samples: int = 16, noise: float = 0.2, seed: int = 0
    ) -> None:
        if samples < 1 or noise < 0:
            raise ValueError(f"samples={samples} must be at least 1 and noise={noise} at least 0")
        self.method = method or Sensitivity()
        self.samples = samples
        self.noise = noise
        self.seed = seed

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        target = resolve_target(model, x, target)
        generator = torch.Generator(x.device).manual_seed(self.seed)
        total = torch.zeros_like(x)
        for _ in range(self.samples):
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            total += self.method(model, x + self.noise * noise, target)
        return total / self.samples


def _graph(value: Tensor) -> Iterator[Node]:
    """Each operation that `value` was made by."""
    seen: set[Node | None] = {None}
    ahead = [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead.extend(before for before, _ in node.next_functions)
            yield node


def _guide(node: Any) -> None:
    """If the operation is a ReLU, by whichever name, let it pass positive gradients alone."""
    name = node.name()
    if name == "ReluBackward0":
        node.register_hook(lambda gradients, _: (None if gradients[0] is None else gradients[0].clamp_(min=0),))
    elif name.startswith("Clamp") and _is_relu(node):
        # The gradient of `clamp` also passes where its input is 0: at units that are not active.
        net = node._saved_self
        node.register_prehook(
            lambda gradients: tuple(None if g is None else g.clamp(min=0).mul_(net > 0) for g in gradients)
        )
    elif isinstance(node, BackwardCFunction) or type(node).__name__ == "CppFunction":
        raise UnexplainableError(
            f"Guided backprop cannot see whether the autograd function {name!r} contains a ReLU. "
            "Write it with torch operations."
        )
    elif name.startswith(("CudnnRnn", "MiopenRnn")) and node._saved_mode == _FUSED_RELU:
        raise UnexplainableError(
            f"Guided backprop cannot reach the ReLUs inside the fused operation {name!r} of nn.RNN: explain on "
            "the CPU, or inside torch.backends.cudnn.flags(enabled=False)."
        )


def _is_relu(node: Any) -> bool:
    low, high = getattr(node, "_saved_min", None), getattr(node, "_saved_max", None)
    return high is None and isinstance(low, int | float) and low == 0


class _NoReLUInPlace(TorchFunctionMode):
    """Has a ReLU that overwrites its input computed beside it, and copied there: then it is part of the graph."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        in_place = name in ("relu_", "clamp_", "clamp_min_", "clip_")
        if not in_place and not (name == "relu" and (kwargs.get("inplace") or True in args[1:])):
            return func(*args, **kwargs)
        tensor, *limits = args or (kwargs.pop("input"),)
        if "relu" in name:
            return tensor.copy_(torch.relu(tensor))
        return tensor.copy_(getattr(torch, name[:-1])(tensor.clone(), *limits, **kwargs))


class _ConstantSigmoids(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.detach() if getattr(func, "__name__", "") == "sigmoid" else result
