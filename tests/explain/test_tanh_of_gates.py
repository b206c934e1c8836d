"""A tanh or an ELU that is written with a sigmoid or exp is an activation; what it scales still gets all relevance."""

import pytest
import torch
import torch.nn.functional as F
from readers import assert_equal
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, Sensitivity

METHODS = {
    "z+": LRP(start="logit"),
    "epsilon": LRP(Epsilon(1e-2)),
    "alpha-beta": LRP(AlphaBeta(1.5, 0.5), start="logit"),
    "gamma, spread": LRP(Composite(Gamma(0.25), bias="spread")),
    "per step": LRP(Composite(AlphaBeta(1.5, 0.5), memory="per_step"), start="logit"),
    "with a graph": LRP(Epsilon(1e-2), create_graph=True),
    "SA": Sensitivity(),
}
TANH = {
    "sigmoid": lambda x: 2 * torch.sigmoid(2 * x) - 1,
    "negated sigmoid": lambda x: 1 - 2 * torch.sigmoid(-2 * x),
    "centred sigmoid": lambda x: (torch.sigmoid(2 * x) - 0.5) * 2,
    "sigmoid written out": lambda x: 2 / (1 + torch.exp(-2 * x)) - 1,
    "two sigmoids": lambda x: torch.sigmoid(2 * x) - torch.sigmoid(-2 * x),
    "one exp": lambda x: (lambda e: (1 - e) / (1 + e))(torch.exp(-2 * x)),
    "two exps": lambda x: (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
}


class Cell(nn.Module):
    """An LSTM; its tanh is a function, or part of the one sigmoid of all gates."""

    def __init__(self, tanh):
        super().__init__()
        torch.manual_seed(0)
        self.tanh, self.read, self.recur, self.out = tanh, nn.Linear(3, 16), nn.Linear(4, 16), nn.Linear(4, 2)
        self.double()

    def forward(self, x):
        h = c = x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            z = self.read(step) + self.recur(h)
            if self.tanh is None:
                i, f, g, o = torch.sigmoid(z * torch.tensor([1.0, 1, 2, 1]).repeat_interleave(4)).chunk(4, 1)
                g = 2 * g - 1
                c = f * c + i * g
                h = o * (2 * torch.sigmoid(2 * c) - 1)
            else:
                i, f, g, o = z.chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * self.tanh(g)
                h = o.sigmoid() * self.tanh(c)
        return self.out(h)


X = torch.rand(3, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4 - 2


@pytest.mark.parametrize("spelling", TANH)
@pytest.mark.parametrize("method", METHODS)
def test_an_lstm(method, spelling):
    assert_equal(METHODS[method](Cell(TANH[spelling]), X, 1), METHODS[method](Cell(torch.tanh), X, 1))


@pytest.mark.parametrize("method", ["z+", "alpha-beta", "gamma, spread", "SA"])  # epsilon differs, as z is scaled
def test_one_sigmoid_for_all_gates(method):
    assert_equal(METHODS[method](Cell(None), X, 1), METHODS[method](Cell(torch.tanh), X, 1))


class Layers(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.out = nn.Linear(3, 4).double(), nn.Linear(3, 4).double(), nn.Linear(4, 2).double()
        self.function = function

    def forward(self, x):
        return self.out(self.function(self.one(x[:, 0]), self.two(x[:, 1])))


SAME = {
    "ELU": (lambda a, b: torch.where(a > 0, a, a.exp() - 1), lambda a, b: F.elu(a)),
    "CELU": (lambda a, b: torch.where(a > 0, a, 0.5 * (torch.exp(a / 0.5) - 1)), lambda a, b: F.celu(a, 0.5)),
    "masked": (lambda a, b: (a < 0) * (a.exp() - 1), lambda a, b: (a < 0) * torch.expm1(a)),
    "a decay": (  # scales a signal: no activation
        lambda a, b: (1 - torch.exp(-a.relu())) * b, lambda a, b: (1 - torch.exp(-a.relu())).detach() * b,
    ),
    "a decay to a constant, which is no signal": (
        lambda a, b: (1 - torch.exp(-a.relu())) * torch.arange(4) + b,
        lambda a, b: ((1 - torch.exp(-a.relu())) * torch.arange(4)).detach() + b,
    ),
    "two gates": (
        lambda a, b: (1 - torch.exp(-b.relu())) * b.sigmoid() * a,
        lambda a, b: ((1 - torch.exp(-b.relu())) * b.sigmoid()).detach() * a,
    ),
    "1 - (1 - gate)": (lambda a, b: (1 - (1 - a.exp())) * b, lambda a, b: a.exp().detach() * b),
    "a gate's tanh": (
        lambda a, b: (2 * torch.sigmoid(a.sigmoid()) - 1) * b, lambda a, b: a.sigmoid().mul(0.5).tanh().detach() * b,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
@pytest.mark.parametrize("method", ["z+", "epsilon", "alpha-beta", "gamma, spread", "with a graph"])
def test_layers(method, what):
    one, other = SAME[what]
    assert_equal(METHODS[method](Layers(one), X, 1), METHODS[method](Layers(other), X, 1))
