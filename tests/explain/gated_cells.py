"""Recurrent cells written by hand in many ways, with gates that are free or held constant."""

import torch
import torch.nn.functional as F
from torch import nn

INPUTS, UNITS = 3, 4


def free(gate):
    return gate


def held(gate):
    return gate.detach()


def lstm_step(x2h, h2h, step, h, c, hold, act=torch.tanh, out=torch.tanh):
    i, f, g, o = (x2h(step) + h2h(h)).chunk(4, 1)
    i, f, o = (hold(torch.sigmoid(gate)) for gate in (i, f, o))
    c = f * c + i * act(g)
    return o * out(c), c


def tutorial_lstm(x2h, h2h, x, hold, state):
    h, c = state(x), state(x)
    for step in x.unbind(1):
        h, c = lstm_step(x2h, h2h, step, h, c, hold)
    return h


def relu_lstm(x2h, h2h, x, hold, state):
    h, c = state(x), state(x)
    for step in x.unbind(1):
        h, c = lstm_step(x2h, h2h, step, h, c, hold, F.relu, free)
    return h


def lstm_of_one_sigmoid(x2h, h2h, x, hold, state):
    """All gates by one sigmoid, cut apart afterwards, the cell in place."""
    h, c = state(x), state(x).clone()
    for step in x.unbind(1):
        net = x2h(step) + h2h(h)
        gates = hold(net[:, UNITS:].sigmoid())
        i, f, o = gates.reshape(len(x), 3, UNITS).unbind(1)
        c = torch.addcmul(f * c, i, net[:, :UNITS].tanh())
        h = c.tanh().mul(o)
    return h


def coupled_lstm(x2h, h2h, x, hold, state):
    """The input gate is what the forget gate leaves; the output gate is scaled."""
    h, c = state(x), state(x)
    for step in x.unbind(1):
        net = x2h(step) + h2h(h)
        f, o = hold(torch.sigmoid(net[:, :UNITS])), hold(torch.sigmoid(net[:, UNITS : 2 * UNITS]))
        c = f * c + (1 - f) * F.relu(net[:, 2 * UNITS : 3 * UNITS])
        h = (0.5 + o / 2) * torch.neg(c)
    return h


def gru(x2h, h2h, x, hold, state):
    h = state(x)
    for step in x.unbind(1):
        xr, xz, xn = x2h(step)[:, : 3 * UNITS].chunk(3, 1)
        hr, hz, hn = h2h(h)[:, : 3 * UNITS].chunk(3, 1)
        r, z = hold(torch.sigmoid(xr + hr)), hold(torch.sigmoid(xz + hz))
        n = torch.tanh(xn + r * hn)
        h = (1 - z) * n + z * h
    return h


def gru_by_lerp(x2h, h2h, x, hold, state):
    h = state(x)
    for step in x.unbind(1):
        xz, xn = x2h(step)[:, : 2 * UNITS].chunk(2, 1)
        hz, hn = h2h(h)[:, : 2 * UNITS].chunk(2, 1)
        h = torch.lerp(F.relu(xn + hn), h, hold(torch.sigmoid(xz + hz)))
    return h


def gates_collected_in_a_buffer(x2h, h2h, x, hold, state):
    """Gates of all steps are written into a tensor in place, then scale all signals at once."""
    net = x2h(x)
    gates = torch.zeros_like(net[:, :, :UNITS])
    for step in range(x.shape[1]):
        gates[:, step] = torch.sigmoid(net[:, step, :UNITS])
    return (hold(gates) * net[:, :, UNITS : 2 * UNITS].relu()).sum(1)


def gru_with_a_leak(x2h, h2h, x, hold, state):
    """`torch.lerp` by a number, of signals and of gates."""
    h = before = state(x)
    for step in x.unbind(1):
        one, two, signal, _ = (x2h(step) + h2h(h)).chunk(4, 1)
        gate = torch.lerp(hold(torch.sigmoid(one)), hold(torch.sigmoid(two)), 0.3)
        before, h = h, torch.lerp(before, gate * signal.relu() + (1 - gate) * h, 0.9)
    return h


def einsum_of_gates(x2h, h2h, x, hold, state):
    net = x2h(x)
    return torch.einsum("btu,btu->bu", hold(torch.sigmoid(net[..., :UNITS])), net[..., UNITS : 2 * UNITS].relu())


def product_of_gates(x2h, h2h, x, hold, state):
    one, two, signal, _ = x2h(x).sum(1).chunk(4, 1)
    return hold(torch.sigmoid(one) * F.hardsigmoid(two)) * signal.relu()


def gate_over_all_gates(x2h, h2h, x, hold, state):
    """Weights that are gates divided by their sum over time."""
    gates = torch.sigmoid(x2h(x)[..., :1])
    weights = hold(gates / gates.sum(1, keepdim=True))
    return (weights * x2h(x)[..., :UNITS].relu()).sum(1)


def functions_of_gates(x2h, h2h, x, hold, state):
    """The real-gated linear recurrent unit: decay a^(c r), and the root of what it leaves; h is read over a gate."""
    h = state(x)
    for step in x.unbind(1):
        r, i, signal, o = (x2h(step) + h2h(h)).chunk(4, 1)
        r, i, o = (hold(torch.sigmoid(gate)) for gate in (r, i, o))
        decay = torch.exp(-2 * r * torch.arange(1.0, UNITS + 1, dtype=x.dtype))
        h = decay * h + torch.sqrt(torch.clamp(1 - decay**2, min=1e-6)) * (i * signal.relu())
    return h / (1 / o)


def sigmoid_activations(x2h, h2h, x, hold, state):
    """No gate: a layer's activation, read by a linear layer, masked, and summed with a signal."""
    hidden = torch.sigmoid(x2h(x))[..., : 4 * UNITS] * (torch.arange(4 * UNITS) % 3 > 0)
    return F.linear(hidden, x2h.weight.T[:, : 4 * UNITS]).sum(1).repeat(1, 2)[:, :UNITS].relu()


CELLS = [
    tutorial_lstm,
    relu_lstm,
    lstm_of_one_sigmoid,
    coupled_lstm,
    gru,
    gru_by_lerp,
    gru_with_a_leak,
    gates_collected_in_a_buffer,
    einsum_of_gates,
    product_of_gates,
    gate_over_all_gates,
    functions_of_gates,
    sigmoid_activations,
]


class Net(nn.Module):
    def __init__(self, cell, state="zeros", hold=free):
        super().__init__()
        torch.manual_seed(1)
        self.x2h, self.h2h = nn.Linear(INPUTS, 4 * UNITS).double(), nn.Linear(UNITS, 4 * UNITS).double()
        self.out = nn.Linear(UNITS, 2).double()
        self.register_buffer("start", torch.randn(UNITS, dtype=torch.float64).abs())
        self.cell, self.state, self.hold = cell, state, hold

    def begin(self, x):
        return x.new_zeros(len(x), UNITS) if self.state == "zeros" else self.start.expand(len(x), -1)

    def forward(self, x):
        return self.out(self.cell(self.x2h, self.h2h, x, self.hold, self.begin))
