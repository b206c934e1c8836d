"""Layers and activations that are written with other functions of torch have one relevance."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    UnexplainableError,
    WSquare,
    ZBox,
    ZPlus,
)

METHODS = {
    "epsilon": Composite(Epsilon(0.01)),
    "z+": Composite(ZPlus()),
    "alpha-beta": Composite(AlphaBeta(2, 1)),
    "gamma, spread": Composite(Gamma(0.25), bias="spread"),
    "box": Composite(ZPlus(), pixels=ZBox(-4, 4)),
    "w^2": Composite(AlphaBeta(2, 1), pixels=WSquare()),
    "flat": Composite(Gamma(0.25), pixels=Flat(), bias="spread"),
}


class Network(nn.Module):
    """(B, T, 4) to (B, 3)."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way, self.read, self.more, self.out = way, nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.pair = nn.Bilinear(5, 4, 5)
        self.side, self.slow = nn.Parameter(torch.randn(4)), nn.Parameter(torch.rand(5))
        with torch.no_grad():
            self.out.weight.abs_()  # something speaks for it
        self.double()

    def forward(self, x):
        with torch.no_grad():  # torch allows no out= with a graph
            return self.out(self.way(self, x).relu().sum(1)) + 2


def agrees(way, plain, name, graphs=(False, True)):
    x = torch.randn(3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(Network(way)(x), Network(plain)(x))
    expected = LRP(METHODS[name], start="logit")(Network(plain), x, 0)
    assert bool(expected.any())
    for graph in graphs:
        ours = LRP(METHODS[name], start="logit", create_graph=graph)(Network(way), x, 0)
        torch.testing.assert_close(ours.detach(), expected)


def given(operation, *arguments, like=None, **more):
    """The tensor that the result of an operation was written to."""
    out = torch.empty_like(arguments[0] if like is None else like)
    operation(*arguments, **more, out=out)
    return out


def by_steps(h):
    out = torch.zeros_like(h)
    for t in range(h.shape[1]):
        torch.mul(h[:, t], 3.0, out=out[:, t])
    return out


def over_a_signal(m, h):
    """What was a value that depends on the input is a constant then."""
    gone = m.more(h)
    torch.add(m.slow.expand(h.shape), 1.0, out=gone)
    return gone + h


def with_indices(h):
    values, indices = torch.empty_like(h[:, 0]), torch.empty_like(h[:, 0], dtype=torch.long)
    torch.max(h, 1, out=(values, indices))
    return values.unsqueeze(1)


INTO = {
    "add": (lambda m, h: given(torch.add, h, m.slow), lambda m, h: h + m.slow),
    "add scaled": (lambda m, h: given(torch.add, h, h.tanh(), alpha=2), lambda m, h: h + 2 * h.tanh()),
    "mul": (lambda m, h: given(torch.mul, h, m.slow), lambda m, h: h * m.slow),
    "tanh": (lambda m, h: given(torch.tanh, h), lambda m, h: h.tanh()),
    "itself": (lambda m, h: torch.tanh(h, out=h), lambda m, h: h.tanh()),
    "matmul": (lambda m, h: given(torch.matmul, h, m.more.weight), lambda m, h: h @ m.more.weight),
    "cat": (lambda m, h: given(torch.cat, [h, h], 1, like=h.repeat(1, 2, 1)), lambda m, h: torch.cat([h, h], 1)),
    "sum": (lambda m, h: given(torch.sum, h, 1, True, like=h[:, :1]), lambda m, h: h.sum(1, keepdim=True)),
    "max": (lambda m, h: with_indices(h), lambda m, h: h.amax(1, keepdim=True)),
    "views": (lambda m, h: by_steps(h), lambda m, h: 3 * h),
    "over a signal": (over_a_signal, lambda m, h: h + (m.slow + 1).expand(h.shape)),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("way", INTO)
def test_results_in_given_tensors(way, name):
    into, plain = INTO[way]
    agrees(lambda m, x: into(m, m.read(x)), lambda m, x: plain(m, m.read(x)), name)


def test_a_given_tensor_of_another_shape():
    model = Network(lambda m, x: torch.tanh(m.read(x), out=torch.empty(0, dtype=x.dtype)))
    with pytest.raises(UnexplainableError, match=r"'tanh' is given out= of shape \(0,\), but its result has"):
        LRP()(model, torch.randn(3, 4, 4, dtype=torch.float64), 0)


def product(m, x):
    return F.linear(x, m.read.weight)


BIASES = {
    "a row": lambda m, x: product(m, x) + m.read.bias,
    "as many dimensions": lambda m, x: product(m, x) + m.read.bias[None, None],
    "expanded": lambda m, x: product(m, x) + m.read.bias.expand(3, 4, 5)[: len(x)],
    "first": lambda m, x: m.read.bias.view(1, 1, -1) + product(m, x),
    "in place": lambda m, x: product(m, x).add_(m.read.bias[None, None]),
    "matrix": lambda m, x: (x.flatten(0, 1) @ m.read.weight.T + m.read.bias[None]).unflatten(0, (-1, 4)),
    "addmm": lambda m, x: torch.addmm(m.read.bias[None], x.flatten(0, 1), m.read.weight.T).unflatten(0, (-1, 4)),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("way", BIASES)
def test_biases_of_any_dimension(way, name):
    agrees(BIASES[way], lambda m, x: m.read(x), name)


@pytest.mark.parametrize("name", METHODS)
def test_bilinear_layers_of_a_constant(name):
    def layer(m, x):
        weight = torch.einsum("oij,j->oi", m.pair.weight, m.side)
        return F.linear(m.read(x), weight, m.pair.bias)

    def swapped(m, x):
        weight = m.pair.weight.transpose(1, 2).contiguous()
        return F.bilinear(m.side.expand_as(x), m.read(x), weight, m.pair.bias)

    agrees(lambda m, x: m.pair(m.read(x), m.side.expand_as(x)), layer, name)
    agrees(swapped, layer, name)


LOW, HIGH = torch.tensor(-0.3, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
SATURATING = {
    "minimum and maximum": lambda h: torch.minimum(torch.maximum(h, LOW), HIGH),
    "the other way round": lambda h: torch.max(LOW.expand_as(h), torch.min(h, HIGH.expand_as(h))),
    "fmin and fmax": lambda h: torch.fmin(HIGH, torch.fmax(LOW, h)),
    "clamp by tensors": lambda h: h.clamp(LOW, HIGH),
    "twice": lambda h: h.clamp(min=-0.3).clamp(max=0.4),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("way", SATURATING)
def test_activations_that_saturate(way, name):
    def network(activation):
        def way(m, x):
            h, states = x.new_zeros(len(x), 5), []
            for step in m.read(x).unbind(1):
                h = activation(step + m.slow * h)
                states.append(h)
            return torch.stack(states, 1)

        return way

    agrees(network(SATURATING[way]), network(lambda h: F.hardtanh(h, -0.3, 0.4)), name)
