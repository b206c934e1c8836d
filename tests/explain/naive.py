"""Relevance by the book: dense float64 matrices, one loop an entry, nothing shared with the code under test.

A unit layer is a matrix `J` (outputs, inputs) and a bias; `relevance` of the outputs is shared among the inputs.
"""

import numpy as np


def share(contributions, bias, relevance, epsilon=0.0):
    """R_i = sum_j z_ij / (sum_i' z_i'j + b_j) R_j for contributions z (outputs, inputs)."""
    result = np.zeros(contributions.shape[1])
    for j, row in enumerate(contributions):
        total = row.sum() + bias[j]
        total += epsilon * (1.0 if total >= 0 else -1.0)
        if total != 0:
            result += row / total * relevance[j]
    return result


def z_plus(J, a, b, R):
    return share(np.maximum(J * a, 0), np.maximum(b, 0), R)


def alpha_beta(J, a, b, R, alpha, beta):
    result = np.zeros(J.shape[1])
    for j in range(len(J)):
        z = J[j] * a
        plus, minus = np.maximum(z, 0), np.minimum(z, 0)
        up, down = plus.sum() + max(b[j], 0), minus.sum()
        if down == 0 and up != 0:
            result += plus / up * R[j]
        elif up == 0 and down != 0:
            result += minus / down * R[j]
        elif up != 0:
            result += (alpha * plus / up - beta * minus / down) * R[j]
    return result


def epsilon_rule(J, a, b, R, epsilon):
    return share(J * a, b, R, epsilon)


def gamma_rule(J, a, b, R, gamma):
    """Contributions of the sign of the net input are favoured."""
    z = J * a
    up = (z.sum(1) + b > 0)[:, None]
    favoured = np.where(up, np.maximum(z, 0), np.minimum(z, 0))
    favoured_bias = np.where(up[:, 0], np.maximum(b, 0), np.minimum(b, 0))
    return share(z + gamma * favoured, b + gamma * favoured_bias, R)


def z_box(J, a, b, R, low, high):
    z = J * a - low * np.maximum(J, 0) - high * np.minimum(J, 0)
    return share(z, np.zeros(len(J)), R)


def w_square(J, a, b, R):
    return share(J**2, np.zeros(len(J)), R)


def flat(J, a, b, R, connected=None):
    z = np.ones_like(J) if connected is None else connected.astype(float)
    return share(z, np.zeros(len(J)), R)


def mixed_box_plus(J, a, b, R, pixels, low, high):
    """Pixels by z^B, the other inputs by z+, one denominator."""
    box = J * a - low * np.maximum(J, 0) - high * np.minimum(J, 0)
    return share(np.where(pixels, box, np.maximum(J * a, 0)), np.maximum(b, 0), R)
