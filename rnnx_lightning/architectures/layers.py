"""Layers that torch lacks: sum-like pooling and dropout for sequences."""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LayerT = TypeVar("LayerT", nn.Linear, nn.Conv2d)


def check_columns(columns: int) -> None:
    """Refuse time steps without pixels.

    Raises:
        ValueError: names the number of columns.
    """
    if columns < 1:
        raise ValueError(f"columns={columns} must be at least 1")


def bias_free_linear(inputs: int, outputs: int, fan_in: int | None = None) -> nn.Linear:
    """A linear layer without bias, weights truncated normal with std 1 / sqrt(fan_in).

    Args:
        inputs: width of the input.
        outputs: width of the output.
        fan_in: number of inputs that are summed in all, where this layer is one part of a wider one.
    """
    return initialise(nn.Linear(inputs, outputs, bias=False), fan_in or inputs)


def bias_free_conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A size-keeping convolution without bias, weights truncated normal with std 1 / sqrt(fan_in)."""
    layer = nn.Conv2d(inputs, outputs, size, padding="same", bias=False)
    return initialise(layer, inputs * size * size)


def initialise(layer: LayerT, fan_in: int) -> LayerT:
    """Draw the weights as the thesis does: truncated normal, std 1 / sqrt(fan_in)."""
    std = 1 / math.sqrt(fan_in)
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    return layer


class SumLikePool2d(nn.Module):
    """2 x 2 pooling with stride 2: twice the average; an odd size is padded with zeros at its end."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        return F.avg_pool2d(x, 2, ceil_mode=True, divisor_override=2)


class SequenceDropout(nn.Module):
    """Dropout over a sequence, its masks drawn at once for all time steps.

    Args:
        p: probability of dropping a unit.
        stationary: hold one mask over all time steps of a sequence (Gal and Ghahramani, 2016), else draw one
            for each.
    """

    def __init__(self, p: float = 0.2, stationary: bool = False) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p} must lie in [0, 1)")
        self.p = p
        self.stationary = stationary

    def masks(self, like: Tensor, steps: int, width: int) -> list[Tensor] | None:
        """The factors of each step, (B, width) each: 0 or 1 / (1 - p). None where nothing is dropped."""
        if not self.training or self.p == 0:
            return None
        drawn = 1 if self.stationary else steps
        keep = 1 - self.p
        # Uniform in [keep, 1 + keep), rounded down, is 1 with probability `keep`; bernoulli_ takes twice as long.
        mask = torch.empty(drawn, len(like), width, device=like.device).uniform_(keep, 1 + keep).floor_()
        return list(mask.div_(keep).to(like.dtype).expand(steps, -1, -1).unbind(0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, F) to (B, T, F)."""
        masks = self.masks(x, x.shape[1], x.shape[2])
        return x if masks is None else x * torch.stack(masks, dim=1)

    def extra_repr(self) -> str:
        """What distinguishes one from another."""
        return f"p={self.p}, stationary={self.stationary}"


def gate_linear(inputs: int, outputs: int, fan_in: int) -> nn.Linear:
    """A linear layer with an ordinary bias, which begins at zero; weights as the others."""
    layer = initialise(nn.Linear(inputs, outputs), fan_in)
    nn.init.zeros_(layer.bias)
    return layer
