"""Nothing and zeros are the same, and a given start state is a constant, in every way of writing it."""

import pytest
import torch
import torch.nn.functional as F
from readers import INPUTS, KINDS, UNITS, Reader, assert_equal, data, start_states
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, DeepTaylor, Epsilon, Gamma, ZPlus

METHODS = {
    "epsilon 0.01": lambda: LRP(Epsilon(0.01)),
    "z+": lambda: LRP(ZPlus()),
    "alpha-beta": lambda: LRP(AlphaBeta(1.5, 0.5)),
    "gamma": lambda: LRP(Gamma(0.25)),
    "deep Taylor": lambda: DeepTaylor(-5, 5),
}
ZEROS = {
    "new_zeros": lambda x: x.new_zeros(len(x), UNITS),
    "zeros": lambda x: torch.zeros(len(x), UNITS, dtype=x.dtype, device=x.device),
    "zeros_like": lambda x: torch.zeros_like(x[:, 0, :UNITS]),
    "new_full": lambda x: x.new_full((len(x), UNITS), 0.0),
    "expanded": lambda x: x.new_zeros(1, UNITS).expand(len(x), -1),
    "one of each": lambda x: x.new_zeros(1, UNITS),
    "to": lambda x: torch.zeros(len(x), UNITS).to(x),
}


class LSTM(nn.Module):
    """The LSTM of every tutorial, from the start state that is made by `start`."""

    def __init__(self, start):
        super().__init__()
        torch.manual_seed(6)
        self.x2h, self.h2h = nn.Linear(INPUTS, 4 * UNITS), nn.Linear(UNITS, 4 * UNITS)
        self.out = nn.Linear(UNITS, 2)
        self.start = start
        self.double()

    def forward(self, x):
        h = c = self.start(x)
        for step in x.unbind(1):
            i, f, g, o = (self.x2h(step) + self.h2h(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.out(h)


class GRU(LSTM):
    """The equation as torch's documentation has it."""

    def forward(self, x):
        h = self.start(x)
        for step in x.unbind(1):
            (r, z, n, _), (r_h, z_h, n_h, _) = self.x2h(step).chunk(4, 1), self.h2h(h).chunk(4, 1)
            z = torch.sigmoid(z + z_h)
            h = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * h
        return self.out(h)


class Recurrence(LSTM):
    """h = relu(W x + U h)."""

    def forward(self, x):
        h = self.start(x)
        for step in x.unbind(1):
            h = F.relu(self.x2h(step)[:, :UNITS] + self.h2h(h)[:, :UNITS])
        return self.out(h)


LOOKS = {
    "samples": lambda h, z: F.grid_sample(h[:, None, None], z.view(len(z), 1, -1, 2), align_corners=True)[:, 0, 0],
    "attends to": lambda h, z: (z.view(len(z), -1, UNITS).softmax(-1) @ h.unsqueeze(-1)).mean(1),
}


class Looking(LSTM):
    """h = relu(W x) + what is read from the last h at places that depend on x."""

    def __init__(self, look, first):
        super().__init__(ZEROS["new_zeros"])
        self.look, self.first = look, first

    def forward(self, x):
        h = self.start(x)
        for t, step in enumerate(x.unbind(1)):
            z = self.x2h(step)
            seen = self.look(h, torch.tanh(z[:, UNITS : 3 * UNITS])) if t or self.first else torch.zeros_like(h)
            h = F.relu(z[:, :UNITS]) + seen
        return self.out(h)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("look", LOOKS)
def test_zeros_are_read_where_the_input_says(look, method):
    (x, _), explain = data(), METHODS[method]()
    expected = explain(Looking(LOOKS[look], first=False), x, 1)
    assert expected.any()
    assert_equal(explain(Looking(LOOKS[look], first=True), x, 1), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_fused_modules(kind, method):
    (x, _), model, explain = data(), Reader(kind, num_layers=2, bidirectional=True), METHODS[method]()
    target = model(x).argmax(1)
    state = start_states(model.rnn)
    zeros = tuple(torch.zeros_like(s) for s in state) if isinstance(state, tuple) else torch.zeros_like(state)
    assert torch.equal(explain(model, x, target), explain(model, x, target, hx=zeros))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("cell", [LSTM, GRU, Recurrence])
def test_cells_written_out(cell, zeros, method):
    (x, _), explain = data(), METHODS[method]()
    expected = explain(cell(ZEROS["new_zeros"]), x)
    assert expected.any()
    assert_equal(explain(cell(ZEROS[zeros]), x), expected, 1e-12)


@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_epsilon_zero_is_gradient_times_input_with_a_given_state(cell):
    """Gates detached, tanh(z) as z times the constant tanh(z) / z; a given state is no input."""
    given = torch.randn(1, UNITS, dtype=torch.float64)
    (x, _), model = data(), cell(lambda x: given.expand(len(x), -1))
    leaf = x.clone().requires_grad_()
    real_sigmoid, real_tanh = torch.sigmoid, torch.tanh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "sigmoid", lambda z: real_sigmoid(z).detach())
        patch.setattr(torch, "tanh", lambda z: z * (real_tanh(z) / z).detach())
        logits = model(leaf)
        (gradient,) = torch.autograd.grad(logits.amax(1).sum(), leaf)
    assert_equal(LRP(Epsilon(0.0), start="logit")(model, x), gradient * x)
