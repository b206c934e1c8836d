"""Methods that look at the gradient of the logit by the input."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rnnx_lightning.explain.attributor import Attributor, Target, input_gradient, resolve_target


class Sensitivity(Attributor):
    """Sensitivity analysis: R = (d z_y / d x)^2 [SVZ13]."""

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        return input_gradient(model, x, target).square()


class GradientTimesInput(Attributor):
    """R = x * d z_y / d x; for a ReLU network without biases the parts of z_y."""

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        return x * input_gradient(model, x, target)


class GuidedBackprop(Attributor):
    """The square of the gradient when ReLU passes only positive gradients of active units [SDBR15]."""

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        with _GuidedReLUs():
            return input_gradient(model, x, target).square()


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


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = x.clamp(min=0)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, result, 0).clamp_(min=0)


class _GuidedReLUs(TorchFunctionMode):
    """Every ReLU, functional or a module, by whichever name, is a guided one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("relu", "relu_"):
            result = _GuidedReLU.apply(args[0] if args else kwargs["input"])
            if name == "relu_" or kwargs.get("inplace") or (len(args) > 1 and args[1]):
                return args[0].copy_(result)
            return result
        if name in ("clamp", "clamp_min", "clip") and _is_relu(*args[1:], **kwargs):
            return _GuidedReLU.apply(args[0])
        return func(*args, **kwargs)


def _is_relu(min: Any = None, max: Any = None, **_: Any) -> bool:
    return max is None and isinstance(min, int | float) and min == 0
