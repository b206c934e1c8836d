"""Layers that torch lacks: sum-like pooling and dropout for sequences."""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LayerT = TypeVar("LayerT", nn.Linear, nn.Conv2d)


def check_sizes(**sizes: int) -> None:
    """Refuse sizes, given by their names, below 1.

    Raises:
        ValueError: a size is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")


def bias_free_linear(inputs: int, outputs: int, fan_in: int | None = None) -> nn.Linear:
    """A linear layer without bias, weights truncated normal with std 1 / sqrt(fan_in).

    Args:
        inputs: width of the input.
        outputs: width of the output.
        fan_in: total number of inputs, if this layer is one part of a wider one; default: `inputs`.
    """
    return initialise(nn.Linear(inputs, outputs, bias=False), fan_in or inputs)


def bias_free_conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A size-keeping convolution without bias, weights truncated normal with std 1 / sqrt(fan_in).

    Channels are last in memory, and so are those of its output: this makes pooling and input gradients faster.
    """
    layer = nn.Conv2d(inputs, outputs, size, padding="same", bias=False)
    return initialise(layer, inputs * size * size).to(memory_format=torch.channels_last)


def initialise(layer: LayerT, fan_in: int) -> LayerT:
    """Draw the weights as in [Cho18]: truncated normal, std 1 / sqrt(fan_in)."""
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
        stationary: use one mask for all time steps of a sequence [GG16]; else each step has its own.
        times: number of successive dropouts that are replaced by one; a unit is kept if all of them keep it.
    """

    def __init__(self, p: float = 0.2, stationary: bool = False, times: int = 1) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p} must be at least 0 and below 1")
        self.p = p
        self.stationary = stationary
        self.times = times
        self.keep = (1 - p) ** times

    def masks(self, like: Tensor, steps: int, width: int) -> list[Tensor] | None:
        """The factors of each step, (B, width) each: 0 or 1 / keep. None if nothing is dropped."""
        mask = self._mask((1 if self.stationary else steps, len(like), width), like)
        return None if mask is None else list(mask.expand(steps, -1, -1).unbind(0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, F) to (B, T, F); if it is not stationary, any shape is allowed."""
        mask = self._mask((len(x), 1, x.shape[-1]) if self.stationary else tuple(x.shape), x)
        return x if mask is None else x * mask

    def _mask(self, shape: tuple[int, ...], like: Tensor) -> Tensor | None:
        if not self.training or self.p == 0:
            return None
        return _dropout_mask(shape, self.keep, like)

    def extra_repr(self) -> str:
        """The options, for `print`."""
        return f"p={self.p}, stationary={self.stationary}, times={self.times}"


def _dropout_mask(shape: tuple[int, ...], keep: float, like: Tensor) -> Tensor:
    """1 / keep with probability `keep`, else 0; of the type and on the device of `like`."""
    size = math.prod(shape)
    if like.device.type != "cpu":
        return torch.empty(shape, device=like.device).bernoulli_(keep).div_(keep).to(like.dtype)
    # Drawing is slow on a CPU. 16 random bits are enough for a unit, and one int64 has four times as many.
    bits = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:size]
    highest_dropped = 2**15 - round(keep * 2**16) - 1
    return bits.view(shape).float().sub_(highest_dropped).clamp_(0, 1).div_(keep).to(like.dtype)


def gate_linear(inputs: int, outputs: int, fan_in: int) -> nn.Linear:
    """A linear layer with an ordinary bias, which is 0 at first; weights as in `bias_free_linear`."""
    layer = initialise(nn.Linear(inputs, outputs), fan_in)
    nn.init.zeros_(layer.bias)
    return layer
