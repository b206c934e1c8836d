"""The forward pass of recurrent layers, which keeps what the backward pass needs.

Both directions are stacked: tensors are (W, T, B, H), with W = 1 or 2 directions, T time steps in reading order,
and B examples.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Weights(NamedTuple):
    """The weights of one layer: (W, D, gates * H), (W, H, gates * H), and biases (W, 1, gates * H) or None."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None
    hidden_bias: Tensor | None

    def of_units(self, start: int, stop: int) -> "Weights":
        """The weights of the units from `start` to `stop`."""
        w, u, b, c = (None if tensor is None else tensor[..., start:stop] for tensor in self)
        assert w is not None
        assert u is not None
        return Weights(w, u, b, c)


class Steps(NamedTuple):
    """The values of all time steps, (W, T, B, H).

    Attributes:
        hidden: h_t.
        argument: the argument of the signal's activation.
        reset: the gate that scales U h_{t-1}; None if there is none.
        keep: the gate that scales the memory of the previous step; None if there is no memory.
        written: what a step adds to the memory.
        memory: the memory cell of an LSTM.
    """

    hidden: Tensor
    argument: Tensor
    reset: Tensor | None = None
    keep: Tensor | None = None
    written: Tensor | None = None
    memory: Tensor | None = None


def stacked(tensors: Sequence[Tensor], ways: int) -> Weights:
    """The weights of all directions, from torch's parameters of a layer."""
    each = len(tensors) // ways
    w, u, *biases = (
        torch.stack(list(tensors[n::each])) if ways == 2 else tensors[n].unsqueeze(0) for n in range(each)
    )
    b, c = (bias.unsqueeze(1) for bias in biases) if biases else (None, None)
    return Weights(w.mT, u.mT, b, c)


def _lstm(drive: Tensor, start: list[Tensor], weights: Weights) -> Steps:
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t)."""
    gates, opened = _empty(drive, weights, 4), _empty(drive, weights, 4)
    written, memories, hidden = (_empty(drive, weights, 1) for _ in range(3))
    argument = gates.chunk(4, -1)[2]
    i, f, _, o = opened.chunk(4, -1)
    h, c, u = *start, weights.hidden
    rows = (part.unbind(1) for part in (drive, gates, opened, argument, i, f, o, written, memories, hidden))
    for x, g, s, a, i_t, f_t, o_t, w, c_t, h_t in zip(*rows, strict=True):
        torch.sigmoid(torch.baddbmm(x, h, u, out=g), out=s)
        torch.mul(i_t, a.tanh(), out=w)
        c = torch.addcmul(w, f_t, c, out=c_t)
        h = torch.mul(o_t, c.tanh(), out=h_t)
    return Steps(hidden, argument, None, f, written, memories)


def _gru(drive: Tensor, start: list[Tensor], weights: Weights) -> Steps:
    """h_t = (1 - z) n + z h_{t-1}, n = tanh(W x_t + b + r (U h_{t-1} + b'))."""
    gates, argument, hidden = _empty(drive, weights, 2), _empty(drive, weights, 1), _empty(drive, weights, 1)
    reset, keep = gates.chunk(2, -1)
    units, (h,) = hidden.shape[-1], start
    of_gates, of_signal = drive[..., : 2 * units], drive[..., 2 * units :]
    for x, x_n, s, r, z, a, h_t in zip(
        *(part.unbind(1) for part in (of_gates, of_signal, gates, reset, keep, argument, hidden)), strict=True
    ):
        before = affine(h, weights.hidden, weights.hidden_bias)
        torch.sigmoid(x + before[..., : 2 * units], out=s)
        torch.addcmul(x_n, r, before[..., 2 * units :], out=a)
        h = torch.lerp(a.tanh(), h, z, out=h_t)
    return Steps(hidden, argument, reset, keep, (1 - keep).mul_(argument.tanh()))


def _rnn(activation: Callable[..., Tensor]) -> Callable[[Tensor, list[Tensor], Weights], Steps]:
    """h_t = activation(W x_t + b + U h_{t-1} + b')."""

    def run(drive: Tensor, start: list[Tensor], weights: Weights) -> Steps:
        argument, hidden, h = _empty(drive, weights, 1), _empty(drive, weights, 1), start[0]
        for x, a, h_t in zip(*(part.unbind(1) for part in (drive, argument, hidden)), strict=True):
            h = h_t.copy_(activation(torch.baddbmm(x, h, weights.hidden, out=a)))
        return Steps(hidden, argument)

    return run


STEPS: dict[str, Callable[[Tensor, list[Tensor], Weights], Steps]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": _rnn(torch.tanh),
    "rnn_relu": _rnn(torch.relu),
}


def _empty(drive: Tensor, weights: Weights, gates: int) -> Tensor:
    """(W, T, B, gates * H), where each time step is contiguous."""
    ways, length, batch, _ = drive.shape
    return drive.new_empty(length, ways, batch, gates * weights.hidden.shape[1]).transpose(0, 1)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The affine map x W + b, for each direction."""
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)
