"""Methods that average over many inputs: integrated gradients and SmoothGrad."""

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, Target, resolve_target
from rnnx_lightning.explain.gates import Gates
from rnnx_lightning.explain.gradients import GradientMethod, Sensitivity
from rnnx_lightning.explain.inputs import Inputs, filled, network_of, tensors_of
from rnnx_lightning.explain.isolation import kept_state
from rnnx_lightning.explain.lookups import WithVectors


class IntegratedGradients(GradientMethod):
    """(x - baseline) times the mean gradient on the line from `baseline` to x [Sundararajan et al., 2017].

    Args:
        baseline: one value for all entries, or a tensor that can be expanded to the shape of the input, for one
            example or for all. None: -1, the background of pictures; for tokens, vectors of zeros.
        baseline_token: for tokens, the one whose vectors are the baseline, such as padding.
        steps: number of points on the line; each is the midpoint of one of `steps` equal intervals.
        gates: see `GradientMethod`.
        create_graph: see `GradientMethod`.

    Raises:
        ValueError: `steps` is less than 1, or (when called) the baseline does not fit the input.
    """

    def __init__(
        self,
        baseline: float | Tensor | None = None,
        steps: int = 32,
        gates: Gates = "free",
        *,
        baseline_token: int | None = None,
        create_graph: bool = False,
    ) -> None:
        super().__init__(gates, create_graph=create_graph)
        if steps < 1:
            raise ValueError(f"steps={steps} must be at least 1")
        self.baseline, self.baseline_token = baseline, baseline_token
        self.steps = steps

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        parts = tensors_of(x)
        starts = [self._start(part) for part in parts]
        if isinstance(model, WithVectors) and self.baseline is None:
            starts[len(parts) - len(model.lookups) :] = [lookup.start for lookup in model.lookups]
        target = resolve_target(model, x, target)
        totals = [torch.zeros_like(part) for part in parts]
        for step in range(self.steps):  # one after the other: memory stays that of one explanation
            way = (step + 0.5) / self.steps
            points = [torch.lerp(start, part, way) for start, part in zip(starts, parts, strict=True)]
            with kept_state(network_of(model)):  # every point meets the same network
                gradients = tensors_of(self._gradient(model, filled(x, points), target))
            totals = [total + gradient for total, gradient in zip(totals, gradients, strict=True)]
        shares = zip(parts, starts, totals, strict=True)
        return filled(x, [(part - start) * total / self.steps for part, start, total in shares])

    def _with_vectors(self, model: nn.Module, x: Inputs) -> WithVectors:
        return WithVectors(model, x, self.baseline_token)

    def _start(self, part: Tensor) -> Tensor:
        """Where the way begins."""
        value = -1.0 if self.baseline is None else self.baseline
        start = torch.as_tensor(value, dtype=part.dtype, device=part.device).detach()
        try:
            return start.expand_as(part)
        except RuntimeError as error:
            raise ValueError(
                f"a baseline of shape {tuple(start.shape)} cannot be expanded to the input's, {tuple(part.shape)}"
            ) from error


class SmoothGrad(Attributor):
    """The mean of another method over noisy copies of the input [Smilkov et al., 2017].

    The options `gates` and `create_graph` are those of the other method.

    Args:
        method: any attributor (in the paper, a gradient method); default: `Sensitivity()`.
        samples: number of noisy copies.
        noise: standard deviation of the noise, in the unit of the input (for tokens: of their vectors).
        seed: seed of the noise.

    Raises:
        ValueError: `samples` is less than 1, or `noise` is negative.
    """

    needs_gradient = warns_of_nan = True

    def __init__(
        self, method: Attributor | None = None, samples: int = 16, noise: float = 0.2, seed: int = 0
    ) -> None:
        if samples < 1 or not noise >= 0:
            raise ValueError(f"samples={samples} must be at least 1 and noise={noise} at least 0")
        self.method = method or Sensitivity()
        self.samples = samples
        self.noise = noise
        self.seed = seed

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        parts = tensors_of(x)
        target = resolve_target(model, x, target)
        generator = torch.Generator(parts[0].device).manual_seed(self.seed)
        totals = [torch.zeros_like(part) for part in parts]
        for _ in range(self.samples):
            noisy = [
                part
                + self.noise * torch.randn(part.shape, generator=generator, device=part.device, dtype=part.dtype)
                for part in parts
            ]
            relevance = tensors_of(self.method(model, filled(x, noisy), target))
            totals = [total + part for total, part in zip(totals, relevance, strict=True)]
        return filled(x, [total / self.samples for total in totals])
