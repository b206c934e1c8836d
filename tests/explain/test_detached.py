"""What a network detaches keeps its relevance: LRP explains the value, which is the same without `detach`."""

import naive
import numpy as np
import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, DeepTaylor, Epsilon, Gamma, ZBox, ZPlus

METHODS = {
    "epsilon": LRP(Epsilon(1e-9)),
    "z+": LRP(ZPlus()),
    "alpha-beta": LRP(AlphaBeta(2, 1)),
    "gamma": LRP(Gamma(0.25)),
    "z^B": LRP(Composite(ZPlus(), pixels=ZBox(-5, 5))),
    "deep Taylor": DeepTaylor(-5, 5),
}


class Network(nn.Module):
    def __init__(self, forward, detached=True):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.detached = forward, detached
        self.read, self.gate, self.state, self.out = (nn.Linear(4, 4) for _ in range(4))

    def held(self, x):
        return x.detach() if self.detached else x

    def forward(self, x):
        return self.how(self, x)


def reversible(m, x):
    """Mean and deviation are taken off the input and put back on the output."""
    mean = m.held(x.mean(1, keepdim=True))
    deviation = m.held(torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5))
    return m.out((x - mean) / deviation) * deviation + mean


def last_taken_off(m, x):
    last = m.held(x[:, -1:])
    return m.out(x - last) + last


def truncated(m, x):
    """A recurrent state is cut off from the steps before."""
    state = torch.zeros_like(x)
    for _ in range(3):
        state = torch.tanh(m.read(x) + m.state(m.held(state)))
    return m.out(state)


def gated(m, x):
    """A detached state is a signal beside a gate."""
    gate = torch.sigmoid(m.gate(x))
    state = torch.tanh(m.read(x))
    for _ in range(2):
        state = gate * m.held(state) + (1 - gate) * torch.tanh(m.state(x))
    return m.out(state)


def straight_through(m, x):
    h = torch.tanh(m.read(x))
    return m.out(h + m.held(h.round() - h))


def in_place(m, x):
    h = torch.relu(m.read(x))
    return m.out(h.detach_() if m.detached else h)


def attention(m, x):
    """Weights times a detached memory."""
    memory = m.held(m.read(x)).unsqueeze(2)
    weights = torch.softmax(m.gate(x).unsqueeze(1) * torch.arange(4.0, dtype=x.dtype)[:, None], -1)
    return m.out((weights @ memory).squeeze(2))


WAYS = {
    f.__name__: f for f in (reversible, last_taken_off, truncated, gated, straight_through, in_place, attention)
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", WAYS)
def test_relevance_is_as_without_detach(way, method):
    x = torch.randn(5, 4, dtype=torch.float64)
    ours, plain = (METHODS[method](Network(WAYS[way], d).double(), x) for d in (True, False))
    assert bool((plain != 0).any())
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)


FACTORS = {
    "a layer": lambda m, x: torch.tanh(m.gate(x)).detach(),
    "the input": lambda m, x: x.detach(),
    "a copy of the input": lambda m, x: x.data.clone().flip(1),  # a mask times a mixture of sounds
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("form", FACTORS)
def test_what_is_detached_as_a_factor_is_a_constant(form, first):
    """The author of a network says by `detach` which factor of a product is no signal."""
    x, factor = torch.randn(5, 4, dtype=torch.float64), FACTORS[form]

    def product(m, x):
        h = torch.tanh(m.read(x))
        return m.out(factor(m, x) * h if first else h * factor(m, x))

    model = Network(product).double()
    leaf = x.clone().requires_grad_()
    h = model.read(leaf)
    chord = (torch.tanh(h) / h).detach() * h * factor(model, leaf).detach()
    (gradient,) = torch.autograd.grad(model.out(chord)[:, 2].sum(), leaf)
    torch.testing.assert_close(LRP(Epsilon(1e-12))(model, x, 2), gradient * x, rtol=1e-6, atol=1e-9)


CODES = torch.randn(9, 4, dtype=torch.float64)


def nearest(h):
    return CODES[torch.cdist(h, CODES).argmin(1)]


LOOKED_UP = {
    "a sum": lambda h: h + (nearest(h) - h).detach(),
    "the other way round": lambda h: nearest(h) - h.detach() + h,
    "cancelled first": lambda h: h - h.detach() + nearest(h),
    "an activation": lambda h: (lambda t: t + (nearest(t) - t).detach())(torch.tanh(h)),
}


@pytest.mark.parametrize("form", LOOKED_UP)
def test_what_is_looked_up_stands_for_what_it_is_looked_up_for(form):
    """As the gradient, relevance goes straight through the code book; only comparisons lead to its entries."""
    x = torch.randn(5, 4, dtype=torch.float64)
    model = Network(lambda m, x: m.out(LOOKED_UP[form](m.read(x)))).double()
    for layer in (model.read, model.out):
        torch.nn.init.zeros_(layer.bias)
    net = x @ model.read.weight.T
    code = nearest(torch.tanh(net) if form == "an activation" else net)
    at_code = code * model.out.weight[2]
    expected = x * ((at_code / net) @ model.read.weight)
    torch.testing.assert_close(LRP(Epsilon(1e-12), start="logit")(model, x, 2), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("way", ["a sum", "cancelled first"])
@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(1.5, 0.5), Gamma(0.25), Epsilon(1e-12)])
def test_what_is_looked_up_for_units_that_are_off(rule, way):
    """Relevance reaches units that ReLU switches off, as their codes are not 0."""
    x = torch.randn(5, 4, dtype=torch.float64)
    model = Network(lambda m, x: m.out(LOOKED_UP[way](m.read(x).relu()))).double()
    torch.nn.init.zeros_(model.out.bias)
    W, b = (p.detach().numpy() for p in model.read.parameters())
    code = nearest(model.read(x).relu())
    for graph in (False, True):
        ours = LRP(rule, start="logit", create_graph=graph)(model, x, 2).detach()
        for i in range(5):
            R = at_inputs(
                rule,
                model.out.weight[2:3].detach().numpy(),
                code[i].numpy(),
                np.zeros(1),
                code[i] @ model.out.weight[2],
            )
            np.testing.assert_allclose(ours[i], at_inputs(rule, W, x[i].numpy(), b, R), rtol=1e-6, atol=1e-9)


def at_inputs(rule, W, a, b, R):
    R = np.atleast_1d(np.asarray(R.detach() if isinstance(R, torch.Tensor) else R))
    match rule:
        case ZPlus():
            return naive.z_plus(W, a, b, R)
        case AlphaBeta():
            return naive.alpha_beta(W, a, b, R, rule.alpha, rule.beta)
        case Gamma():
            return naive.gamma_rule(W, a, b, R, rule.gamma)
        case _:
            return naive.epsilon_rule(W, a, b, R, rule.epsilon)


def test_what_is_looked_up_without_detach_is_a_constant():
    x = torch.randn(5, 4, dtype=torch.float64)
    model = Network(lambda m, x: m.out((lambda h: h + (nearest(h) - h))(m.read(x)))).double()
    assert not bool(LRP(Epsilon(1e-12), start="logit")(model, x, 2).any())
