"""Totals of contributions, with separate exponents to avoid underflow."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Total(NamedTuple):
    """A total of contributions: mantissa * 2^exponent.

    The contributions to a memory cell shrink at each time step, and would underflow after many steps.

    Attributes:
        mantissa: of the shape of the unit.
        exponent: of the same shape, integers; None means 0.
    """

    mantissa: Tensor
    exponent: Tensor | None = None

    @property
    def real(self) -> Tensor:
        """The total as one number."""
        return self.mantissa if self.exponent is None else self.mantissa * power(self.exponent, self.mantissa)

    def view(self, of: Callable[[Tensor], Tensor]) -> "Total":
        """The same view of mantissa and exponent."""
        return Total(of(self.mantissa), None if self.exponent is None else of(self.exponent))


def power(exponent: Tensor, like: Tensor) -> Tensor:
    """2^exponent in the dtype of another tensor; at most the largest power of 2 that this dtype has."""
    return fraction(exponent.clamp(max=math.frexp(torch.finfo(like.dtype).max)[1] - 1), like)


def fraction(exponent: Tensor, like: Tensor) -> Tensor:
    """2^exponent in the dtype of another tensor, for exponents that are not too large."""
    return torch.exp2(exponent.to(torch.float64 if like.dtype == torch.float64 else torch.float32)).to(like.dtype)


EVERY = 8  # number of successive scalings after which totals are normalised


class Unknown:
    """A total that has not been computed."""


UNKNOWN = Unknown()


def added(totals: Sequence[Total | None]) -> Total | None:
    """The sum of all totals that are not None."""
    result: Total | None = None
    for total in totals:
        if total is None or result is None:
            result = result if total is None else total
        elif total.exponent is None and result.exponent is None:
            result = Total(result.mantissa + total.mantissa)
        else:
            one, other = (exponent_of(t) for t in (result, total))
            exponent = torch.maximum(one, other)
            a, b = result.mantissa, total.mantissa
            result = Total(a * fraction(one - exponent, a) + b * fraction(other - exponent, b), exponent)
    return result


EMPTY = -1e9  # the exponent of a total of 0


def exponent_of(total: Total) -> Tensor:
    """The exponent of a total; for a total of 0, it is below all others."""
    exponent = torch.zeros_like(total.mantissa, dtype=torch.float32) if total.exponent is None else total.exponent
    return torch.where(total.mantissa == 0, EMPTY, exponent)


def normalised(total: Total) -> Total:
    """The same total with mantissas near 1."""
    mantissa, exponent = torch.frexp(total.mantissa.detach())
    shift = exponent.to(torch.float32)
    if torch.is_grad_enabled():  # frexp is not differentiable
        mantissa = total.mantissa * power(-shift, total.mantissa)
    return Total(mantissa, shift if total.exponent is None else total.exponent + shift)
