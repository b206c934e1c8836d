"""Which entries of a tensor are pixels, found while the network runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """The entries of a tensor that come from the input by moving and by scaling alone.

    Attributes:
        mask: true where an entry is a pixel, of the tensor's shape; None where all are.
        scale: an entry is scale * pixel + shift; numbers, or tensors of the tensor's shape.
        shift: see above.
        alone: what is no pixel is padding.
    """

    mask: Tensor | None = None
    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0
    alone: bool = True

    def bounds(self, low: float | Tensor, high: float | Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Least and greatest value of the entries, where pixels lie in [low, high]."""
        if isinstance(self.scale, float) and isinstance(self.shift, float) and self.scale >= 0:
            return self.scale * low + self.shift, self.scale * high + self.shift
        one = torch.as_tensor(self.scale * low + self.shift)
        other = torch.as_tensor(self.scale * high + self.shift)
        return torch.minimum(one, other), torch.maximum(one, other)

    def moved(self, move: Callable[[Tensor], Tensor], shape: torch.Size) -> "Pixels":
        """After an operation that moves entries; `shape` is the tensor's before it."""

        def follow(part: Tensor | float) -> Tensor | float:
            return move(part.expand(shape)) if isinstance(part, Tensor) else part

        mask = None if self.mask is None else move(self.mask)
        return Pixels(mask, follow(self.scale), follow(self.shift), self.alone)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> "Pixels":
        """After `scale * entry + shift`."""
        return Pixels(self.mask, scale * self.scale, scale * self.shift + shift, self.alone)

    @property
    def plain(self) -> bool:
        """Neither scaled nor shifted."""
        return isinstance(self.scale, float) and (self.scale, self.shift) == (1.0, 0.0)


def joined(
    pixels: Sequence[Pixels | None], tensors: Sequence[Tensor], join: Callable[[list[Tensor]], Tensor]
) -> Pixels | None:
    """The pixels of several tensors after they were joined (concatenated, stacked)."""
    if all(part is None for part in pixels):
        return None
    masks = [
        torch.full_like(tensor, part is not None, dtype=torch.bool)
        if part is None or part.mask is None
        else part.mask
        for part, tensor in zip(pixels, tensors, strict=True)
    ]
    everywhere = all(part is not None and part.mask is None for part in pixels)
    mask = None if everywhere else join(masks)
    alone = all(part is not None and part.alone for part in pixels)
    if all(part is None or part.plain for part in pixels):
        return Pixels(mask, alone=alone)

    def follow(name: str, default: float) -> Tensor:
        return join(
            [
                torch.as_tensor(default if part is None else getattr(part, name), dtype=tensor.dtype)
                .to(tensor.device)
                .expand(tensor.shape)
                for part, tensor in zip(pixels, tensors, strict=True)
            ]
        )

    return Pixels(mask, follow("scale", 1.0), follow("shift", 0.0), alone)
