"""How one sum is shared, by the book: NumPy, nothing of the package used."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Book:
    """How a sum is shared.

    Attributes:
        kind: "epsilon", "gamma", "z+" or "alpha-beta".
        epsilon: stabiliser, of the sign of the sum.
        gamma: how much more contributions of the sign of the sum count.
        alpha: see `beta`.
        beta: weight of what speaks against.
        memory: "merged": m_t is one sum of s_1 ... s_t; "per_step": a sum of two at each step [AMMS17].
        bias: a constant's share is lost ("share"), handed out evenly with the stabiliser's to the inputs of the sum
            ("spread"), or the constant is left out of the sum ("ignore").
    """

    kind: str = "epsilon"
    epsilon: float = 0.0
    gamma: float = 0.0
    alpha: float = 1.0
    beta: float = 0.0
    memory: str = "merged"
    bias: str = "share"


def messages(z, constant, R, book):
    """(J, I) of R (J,) that goes from each unit, the sum of a row of z (J, I) and a constant (J,), to each input."""
    if book.bias == "ignore":
        constant = np.zeros_like(constant)
    if book.kind in ("epsilon", "gamma"):
        sign = np.where(z.sum(1) + constant >= 0, 1, -1)
        z = z + book.gamma * np.where(z * sign[:, None] > 0, z, 0)
        constant = constant + book.gamma * np.where(constant * sign > 0, constant, 0)
        total = z.sum(1) + constant + sign * book.epsilon
        result = z * quotient(R, total)[:, None]
    else:
        plus, minus = np.maximum(z, 0), np.minimum(z, 0)
        up, down = plus.sum(1) + np.maximum(constant, 0), minus.sum(1)
        alpha = np.where(down == 0, 1, book.alpha) if book.beta else 1.0
        beta = np.where(up == 0, -1, book.beta) if book.beta else 0.0  # the one that is there takes it whole
        result = plus * (alpha * quotient(R, up))[:, None] - minus * (beta * quotient(R, down))[:, None]
    if book.bias == "spread":
        result = result + (R - result.sum(1))[:, None] / z.shape[1]
    return result


def quotient(a, b):
    return np.divide(a, b, out=np.zeros_like(b), where=b != 0)


def share(z, constant, R, book):
    """(I,) what the inputs get of all units."""
    return messages(z, constant, R, book).sum(0)
