"""Baselines that any method should beat."""

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, Target
from rnnx_lightning.explain.inputs import Inputs, has_tokens, mapped, tensors_of
from rnnx_lightning.explain.refusals import UnexplainableError


class Random(Attributor):
    """Random relevance, uniform in [0, 1), independent of model and input.

    Args:
        seed: seed of the random numbers; every call gives the same relevance.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        generator = torch.Generator(tensors_of(x)[0].device).manual_seed(self.seed)

        def drawn(part: Tensor) -> Tensor:
            dtype = part.dtype if part.is_floating_point() else None  # of tokens: torch's default
            return torch.rand(part.shape, generator=generator, device=part.device, dtype=dtype)

        return mapped(drawn, x)


class Input(Attributor):
    """The input as its own explanation: |x - background| of each pixel.

    Args:
        background: value of a background pixel.

    Raises:
        UnexplainableError: the input is tokens, whose numbers have no size.
    """

    def __init__(self, background: float = -1.0) -> None:
        self.background = background

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        if has_tokens(x):
            raise UnexplainableError("Input: the numbers of tokens have no size. Use Random, or another method.")
        return mapped(lambda part: (part - self.background).abs(), x)
