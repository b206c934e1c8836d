"""Totals of contributions, with exponents where they would underflow."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Total(NamedTuple):
    """A total of contributions: mantissa * 2^exponent.

    A memory's contributions shrink at each step, and would underflow after many.

    Attributes:
        mantissa: of the unit's shape.
        exponent: of the same shape, whole numbers; None for 0.
    """

    mantissa: Tensor
    exponent: Tensor | None = None

    @property
    def real(self) -> Tensor:
        """As one number."""
        return self.mantissa if self.exponent is None else self.mantissa * power(self.exponent, self.mantissa)


def power(exponent: Tensor, like: Tensor) -> Tensor:
    """2^exponent in the type of another tensor."""
    return torch.exp2(exponent.to(torch.float64 if like.dtype == torch.float64 else torch.float32)).to(like.dtype)


EVERY = 8  # so many scalings in a row shrink totals little enough


class Unknown:
    """A total that nobody has asked for."""


UNKNOWN = Unknown()


def added(totals: Sequence[Total | None]) -> Total | None:
    """The sum of the totals that there are."""
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
            result = Total(a * power(one - exponent, a) + b * power(other - exponent, b), exponent)
    return result


EMPTY = -1e9  # the exponent of 0


def exponent_of(total: Total) -> Tensor:
    """A total's exponent; that of 0 is lower than all others."""
    exponent = torch.zeros_like(total.mantissa, dtype=torch.float32) if total.exponent is None else total.exponent
    return torch.where(total.mantissa == 0, EMPTY, exponent)


def normalised(total: Total) -> Total:
    """The same with mantissas near 1."""
    mantissa, exponent = torch.frexp(total.mantissa.detach())
    shift = exponent.to(torch.float32)
    if torch.is_grad_enabled():  # frexp has no gradient by the mantissa
        mantissa = total.mantissa * power(-shift, total.mantissa)
    return Total(mantissa, shift if total.exponent is None else total.exponent + shift)
