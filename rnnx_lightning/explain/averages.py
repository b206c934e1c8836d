"""Methods that average over many inputs: integrated gradients and SmoothGrad."""

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, Target, resolve_target
from rnnx_lightning.explain.gates import Gates
from rnnx_lightning.explain.gradients import GradientMethod, Sensitivity


class IntegratedGradients(GradientMethod):
    """(x - baseline) times the mean gradient on the line from `baseline` to x [Sundararajan et al., 2017].

    Args:
        baseline: one value for all entries (background pixels are -1), or a tensor that can be expanded to the
            shape of the input, for one example or for all.
        steps: number of points on the line; each is the midpoint of one of `steps` equal intervals.
        gates: see `GradientMethod`.
        create_graph: see `GradientMethod`.

    Raises:
        ValueError: `steps` is less than 1, or (when called) the baseline does not fit the input.
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
        for step in range(self.steps):  # one after another, to need the memory of only one explanation
            point = torch.lerp(baseline, x, (step + 0.5) / self.steps)
            total = total + self._gradient(model, point, target)
        return (x - baseline) * total / self.steps


class SmoothGrad(Attributor):
    """The mean of another method over noisy copies of the input [Smilkov et al., 2017].

    The options `gates` and `create_graph` are those of the other method.

    Args:
        method: any attributor (in the paper, a gradient method); default: `Sensitivity()`.
        samples: number of noisy copies.
        noise: standard deviation of the noise, in the unit of the input.
        seed: seed of the noise.

    Raises:
        ValueError: `samples` is less than 1, or `noise` is negative.
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
