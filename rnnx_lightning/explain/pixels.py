"""Finds the entries of a tensor that are pixels, while the network runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rnnx_lightning.explain.node import Node


@dataclass(frozen=True)
class Pixels:
    """The entries of a tensor that are computed from the input only by moving and scaling.

    Attributes:
        mask: of the tensor's shape, True where an entry is a pixel; None if all are.
        scale: an entry is scale * pixel + shift; both are numbers, or tensors of the tensor's shape.
        shift: see `scale`.
        others_are_padding: all entries that are not pixels are padding.
    """

    mask: Tensor | None = None
    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0
    others_are_padding: bool = True

    def bounds(self, low: float | Tensor, high: float | Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Lower and upper bounds of the entries, if pixels lie in [low, high]."""
        if isinstance(self.scale, float) and isinstance(self.shift, float) and self.scale >= 0:
            return self.scale * low + self.shift, self.scale * high + self.shift
        one = torch.as_tensor(self.scale * low + self.shift)
        other = torch.as_tensor(self.scale * high + self.shift)
        return torch.minimum(one, other), torch.maximum(one, other)

    def moved(self, move: Callable[[Tensor], Tensor], shape: torch.Size) -> "Pixels | None":
        """The pixels after an operation that moves entries; `shape` is the tensor's shape before it."""

        def follow(part: Tensor | float) -> Tensor | float:
            return move(part.expand(shape)) if isinstance(part, Tensor) else part

        mask = None if self.mask is None else move(self.mask)
        return under(mask, follow(self.scale), follow(self.shift), self.others_are_padding)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> "Pixels":
        """The pixels after `scale * entry + shift`. Padding that is shifted is a constant like others."""
        padding = self.others_are_padding
        if padding and self.mask is not None and (isinstance(shift, Tensor) or shift != 0):
            padding = not bool((torch.as_tensor(shift, device=self.mask.device) * ~self.mask).any())
        return Pixels(self.mask, scale * self.scale, scale * self.shift + shift, padding)

    @property
    def plain(self) -> bool:
        """Whether pixels are neither scaled nor shifted."""
        numbers = isinstance(self.scale, float) and isinstance(self.shift, float)
        return numbers and (self.scale, self.shift) == (1.0, 0.0)


def under(mask: Tensor | None, scale: Tensor | float, shift: Tensor | float, padding: bool) -> Pixels | None:
    """The pixels under a mask; None if there are only features."""
    if mask is None or bool(mask.all()):
        return Pixels(None, scale, shift)
    return Pixels(mask, scale, shift, padding) if padding or bool(mask.any()) else None


def joined(
    pixels: Sequence[Pixels | None], tensors: Sequence[Tensor], join: Callable[[list[Tensor]], Tensor]
) -> Pixels | None:
    """The pixels of several tensors after concatenating or stacking them."""
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
    padding = all(part is not None and part.others_are_padding for part in pixels)
    if all(part is None or part.plain for part in pixels):
        return under(mask, 1.0, 0.0, padding)

    def follow(name: str, default: float) -> Tensor:
        return join(
            [
                torch.as_tensor(default if part is None else getattr(part, name), dtype=tensor.dtype)
                .to(tensor.device)
                .expand(tensor.shape)
                for part, tensor in zip(pixels, tensors, strict=True)
            ]
        )

    return under(mask, follow("scale", 1.0), follow("shift", 0.0), padding)


def present_of(nodes: Sequence["Node | None"], tensors: Sequence[Tensor], apply: Any) -> Tensor | None:
    """Which entries of several joined tensors are not padding. Constant zeros are padding, as with `F.pad`."""
    parts = [tensor != 0 if node is None else node.present for node, tensor in zip(nodes, tensors, strict=True)]
    if all(part is None for part in parts):
        return None
    everywhere = [
        torch.ones_like(tensor, dtype=torch.bool) if part is None else part.expand(tensor.shape)
        for part, tensor in zip(parts, tensors, strict=True)
    ]
    present: Tensor = apply(everywhere)
    return None if bool(present.all()) else present
