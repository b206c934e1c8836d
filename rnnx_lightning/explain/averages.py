"""Methods that average a gradient over many inputs: on a way from a baseline, or with noise."""

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, Target, resolve_target
from rnnx_lightning.explain.gates import Gates
from rnnx_lightning.explain.gradients import GradientMethod, Sensitivity


class IntegratedGradients(GradientMethod):
    """(x - baseline) times the mean gradient on the way from `baseline` to x [Sundararajan et al., 2017].

    Args:
        baseline: where the way begins: one value for all entries (background is -1), or a tensor that can be
            expanded to the input's shape, of one example or of all.
        steps: points on the way, at the middle of equal parts.
        gates: see `GradientMethod`.
        create_graph: see `GradientMethod`.

    Raises:
        ValueError: there are no steps; later, the baseline does not fit the input.
    """

    def __init__(
        self,
        baseline: float | Tensor = -1.0,
        steps: int = 32,
        gates: Gates = "free",
        *,
        create_graph: bool = False,
    ) -> None:
        super().__init__(gates, create_graph=create_graph)
        if steps < 1:
            raise ValueError(f"steps={steps} must be at least 1")
        self.baseline = baseline
        self.steps = steps

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        baseline = torch.as_tensor(self.baseline, dtype=x.dtype, device=x.device).detach()
        try:
            baseline = baseline.expand_as(x)
        except RuntimeError as error:
            raise ValueError(
                f"a baseline of shape {tuple(baseline.shape)} cannot be expanded to the input's, {tuple(x.shape)}"
            ) from error
        target = resolve_target(model, x, target)
        total = torch.zeros_like(x)
        for step in range(self.steps):  # one after the other: memory stays that of one explanation
            point = torch.lerp(baseline, x, (step + 0.5) / self.steps)
            total = total + self._gradient(model, point, target)
        return (x - baseline) * total / self.steps


class SmoothGrad(Attributor):
    """The mean of another method over noisy copies of the input [Smilkov et al., 2017].

    How gates are treated, and whether relevance has a graph, is said by that method's options.

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
            total = total + self.method(model, x + self.noise * noise, target)
        return total / self.samples
