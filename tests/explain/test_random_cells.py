"""Gated cells drawn at random against naive NumPy: gates take nothing, whatever is made of them and whatever they scale."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import assert_equal
from shares import Book, messages, share
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Epsilon, UnexplainableError, ZPlus

INPUTS, UNITS = 3, 2
RULES = {
    "epsilon 0": (Epsilon(0.0), Book()),
    "epsilon": (Epsilon(0.01), Book(epsilon=0.01)),
    "z+": (ZPlus(), Book("z+")),
    "alpha-beta": (AlphaBeta(1.5, 0.5), Book("alpha-beta", alpha=1.5, beta=0.5)),
}

# What is made of gates g[0], g[1], g[2] and constants k[0], k[1] >= 0, of torch tensors as of NumPy arrays; never < 0.
FACTORS = {
    "gate": lambda g, k: g[0],
    "1 - gate": lambda g, k: 1 - g[0],
    "gate * gate": lambda g, k: g[0] * g[1],
    "gate * (1 - gate)": lambda g, k: g[2] * (1 - g[1]),
    "1 - gate * gate": lambda g, k: 1 - g[1] * g[2],
    "mask * gate": lambda g, k: k[0] * g[1],
    "gate * mask * gate": lambda g, k: g[0] * (k[1] * g[1]),
    "gate + constant": lambda g, k: g[2] + k[0],
    "constant + mask * gate": lambda g, k: 0.5 + g[0] * k[1],
    "2 - 2 * gate": lambda g, k: 2 - g[1] * 2,
    "gate / constant": lambda g, k: g[0] / 3,
    "gate + gate": lambda g, k: g[0] + g[1],
    "mean of gates": lambda g, k: (g[0] + g[1] + g[2]) / 3,
    "constant": lambda g, k: k[1],
}
KINDS = sorted(FACTORS)


class Cell(nn.Module):
    """m_t = A m_{t-1} + B s_t + C k, h_t = D tanh(m_t), s_t = act(W x + U h + b + E k'), with factors A to E."""

    def __init__(self, factors, act, started, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.factors, self.act, self.started = factors, act, started
        self.gates = nn.Linear(INPUTS + UNITS, 3 * UNITS)
        self.x2s, self.h2s = nn.Linear(INPUTS, UNITS), nn.Linear(UNITS, UNITS, bias=False)
        self.out = nn.Linear(UNITS, 2, bias=False)
        self.k = nn.Parameter(torch.rand(2, UNITS) * (torch.rand(2, UNITS) > 0.3))
        self.constants = nn.Parameter(torch.rand(3, UNITS))  # >= 0: z+ may add constants before or after clamping
        self.x2s.bias.data.abs_()

    def forward(self, x):
        k = self.k.unbind(0)
        h = x.new_zeros(len(x), UNITS)
        m = self.constants[2].expand(len(x), UNITS) if self.started else h
        for step in x.unbind(1):
            g = torch.sigmoid(self.gates(torch.cat([step, h], 1))).chunk(3, 1)
            A, B, C, D, E = (FACTORS[name](g, k) for name in self.factors)
            total = self.x2s(step) + self.h2s(h) + E * self.constants[1]
            signal = torch.tanh(total) if self.act == "tanh" else torch.relu(total)
            m = A * m + B * signal + C * self.constants[0]
            h = D * torch.tanh(m)
        return self.out(h)


def naive(cell, x, target, book):
    """Relevance of one example (T, INPUTS) and its logit, in NumPy."""
    weights = {name: value.detach().numpy() for name, value in cell.named_parameters()}
    W, U, b, V = (weights[name] for name in ("x2s.weight", "h2s.weight", "x2s.bias", "out.weight"))
    k, constants = weights["k"], weights["constants"]
    h, m, steps = np.zeros(UNITS), constants[2] if cell.started else np.zeros(UNITS), []
    fixed = m  # what constants make of m
    for step in x:
        gates = 1 / (1 + np.exp(-(weights["gates.weight"] @ np.concatenate([step, h]) + weights["gates.bias"])))
        A, B, C, D, E = (FACTORS[name](np.split(gates, 3), k) + np.zeros(UNITS) for name in cell.factors)
        constant = b + E * constants[1]
        total = W @ step + U @ h + constant
        signal = np.tanh(total) if cell.act == "tanh" else np.maximum(total, 0)
        m, fixed = A * m + B * signal + C * constants[0], A * fixed + C * constants[0]
        steps.append((step, h, constant, A, B * signal, fixed))
        h = D * np.tanh(m)
    logits = V @ h
    at_h = np.zeros((len(x) + 1, UNITS))
    at_h[-1] = share(V * h, np.zeros(2), np.where(np.arange(2) == target, logits, 0), book)
    at_signal, result = np.zeros((len(x), UNITS)), np.zeros(x.shape)
    for t in reversed(range(len(x))):
        kept, z = np.ones(UNITS), []
        for _, _, _, A, written, _ in reversed(steps[: t + 1]):
            z.insert(0, kept * written)
            kept = kept * A
        at_signal[: t + 1] += messages(np.array(z).T, steps[t][5], at_h[t + 1], book).T
        step, h, constant = steps[t][:3]
        R = share(np.concatenate([W * step, U * h], 1), constant, at_signal[t], book)
        result[t], at_h[t] = R[:INPUTS], R[INPUTS:]
    return result, logits


@settings(deadline=None, max_examples=80)
@given(
    factors=st.tuples(*[st.sampled_from(KINDS)] * 5),
    act=st.sampled_from(["tanh", "relu"]),
    started=st.booleans(),
    steps=st.integers(1, 4),
    rule=st.sampled_from(sorted(RULES)),
    seed=st.integers(0, 10**6),
)
def test_gates_take_nothing(factors, act, started, steps, rule, seed):
    cell = Cell(factors, act, started, seed).double()
    x = torch.randn(2, steps, INPUTS, dtype=torch.float64)
    target = cell(x).argmax(1)
    ours, book = RULES[rule]
    relevance = LRP(ours, start="logit")(cell, x, target)
    expected, logits = zip(*(naive(cell, x[b].numpy(), int(target[b]), book) for b in range(2)), strict=True)
    np.testing.assert_allclose(cell(x).detach(), np.array(logits), rtol=1e-10, atol=1e-12)
    scale = max(np.abs(expected).max(), 1e-3)  # a sum that nearly cancels under epsilon 0 loses digits in both
    np.testing.assert_allclose(relevance, np.array(expected), rtol=1e-7, atol=1e-8 * scale)


class Function(nn.Module):
    """A function of two linear maps of x, `a` and `b`, read by a third."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(4)
        self.a, self.b, self.out = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2)
        self.function = function
        self.double()

    def forward(self, x):
        return self.out(self.function(self.a(x), self.b(x)))


# Two ways of writing one function each; the first one may be refused, but may not give another relevance.
PAIRS = {
    "a gate between signals": (
        lambda a, b: (lambda s, g: s * g)(*torch.cat([torch.tanh(a), torch.sigmoid(b)], 1).chunk(2, 1)),
        lambda a, b: torch.tanh(a) * torch.sigmoid(b),
    ),
    "a gate scaled twice": (
        lambda a, b: (torch.sigmoid(b) * 0.5) * (2 * torch.tanh(a)),
        lambda a, b: torch.tanh(a) * torch.sigmoid(b),
    ),
    "one minus one minus a gate": (
        lambda a, b: (1 - (1 - torch.sigmoid(b))) * torch.tanh(a),
        lambda a, b: torch.sigmoid(b) * torch.tanh(a),
    ),
    "lerp": (
        lambda a, b: torch.lerp(torch.tanh(a), torch.relu(a), torch.sigmoid(b)),
        lambda a, b: (1 - torch.sigmoid(b)) * torch.tanh(a) + torch.sigmoid(b) * torch.relu(a),
    ),
    "addcmul": (
        lambda a, b: torch.addcmul(torch.tanh(b), torch.sigmoid(b), torch.tanh(a)),
        lambda a, b: torch.tanh(b) + torch.sigmoid(b) * torch.tanh(a),
    ),
    "n + z (h - n)": (
        lambda a, b: torch.relu(a) + torch.sigmoid(b) * (torch.tanh(a) - torch.relu(a)),
        lambda a, b: (1 - torch.sigmoid(b)) * torch.relu(a) + torch.sigmoid(b) * torch.tanh(a),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("rule", ["epsilon 0", "epsilon"])
def test_another_way_of_writing_it(rule, pair):
    one, other = (Function(function) for function in PAIRS[pair])
    x = torch.randn(5, 4, dtype=torch.float64)
    target = other(x).argmax(1)
    expected = LRP(RULES[rule][0], start="logit")(other, x, target)
    try:
        relevance = LRP(RULES[rule][0], start="logit")(one, x, target)
    except UnexplainableError as refusal:
        pytest.skip(f"refused: {refusal}")
    assert_equal(relevance, expected)


@pytest.mark.parametrize("also_a_factor", [False, True])
@pytest.mark.parametrize("rule", ["epsilon 0", "epsilon", "z+"])
def test_a_gate_that_is_a_term_of_a_sum(rule, also_a_factor):
    """There it is a signal: refused, or an activation that hands its share on to what it was made of."""
    model = Function(lambda a, b: torch.tanh(a) * (torch.sigmoid(b) if also_a_factor else 1) + torch.sigmoid(b))
    x = torch.randn(1, 4, dtype=torch.float64)
    ours, book = RULES[rule]
    logits = model(x)
    try:
        relevance = LRP(ours, start="logit")(model, x)
    except UnexplainableError as refusal:
        pytest.skip(f"refused: {refusal}")
    A, a, B, b, V, v = (parameter.detach().numpy() for parameter in model.parameters())
    x, top = x[0].numpy(), int(logits.argmax())
    gate = 1 / (1 + np.exp(-(B @ x + b)))
    terms = np.stack([np.tanh(A @ x + a) * (gate if also_a_factor else 1), gate], 1)
    R = share(V * terms.sum(1), v, np.where(np.arange(2) == top, logits[0].detach().numpy(), 0), book)
    at_a, at_b = messages(terms, np.zeros(3), R, book).T
    expected = share(A * x, a, at_a, book) + share(B * x, b, at_b, book)
    np.testing.assert_allclose(relevance[0], expected, rtol=1e-10, atol=1e-12)
