"""Baselines that any method should beat."""

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, Target


class Random(Attributor):
    """Random relevance, uniform in [0, 1), independent of model and input.

    Args:
        seed: seed of the random numbers; every call gives the same relevance.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(self.seed)
        return torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)


class Input(Attributor):
    """The input as its own explanation: |x - background| of each pixel.

    Args:
        background: value of a background pixel.
    """

    def __init__(self, background: float = -1.0) -> None:
        self.background = background

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        return (x - self.background).abs()
