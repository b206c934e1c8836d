"""What any method should beat."""

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, Target


class Random(Attributor):
    """Uniform in [0, 1), whatever model and input are.

    Args:
        seed: the same relevance each time.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(self.seed)
        return torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)


class Input(Attributor):
    """The picture itself: how far each pixel is from the background.

    Args:
        background: value of a background pixel.
    """

    def __init__(self, background: float = -1.0) -> None:
        self.background = background

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        return (x - self.background).abs()
