"""Recurrent networks against naive algebra unrolled in time, in every way of writing them."""

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, DeepTaylor, Epsilon, ZPlus

LOW, HIGH = -1.0, 1.0


class ReLURecurrence(nn.Module):
    """h_t = ReLU(W x_t + U h_{t-1}), logits = V h_T, written in one of several ways."""

    def __init__(self, inputs, hidden, classes, style):
        super().__init__()
        self.style, self.inputs, self.hidden = style, inputs, hidden
        self.both = nn.Linear(inputs + hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, classes, bias=False)
        self.relu = nn.ReLU(inplace=style == "inplace")

    def forward(self, x):
        W, U = self.both.weight[:, : self.inputs], self.both.weight[:, self.inputs :]
        h = x.new_zeros(len(x), self.hidden)
        steps = x.unbind(1)
        if self.style == "projected":
            projected = F.linear(x, W).unbind(1)
        for t, step in enumerate(steps):
            if self.style in ("concatenated", "inplace"):
                h = self.relu(self.both(torch.cat([step, h], dim=1)))
            elif self.style == "sum":
                h = F.relu(F.linear(step, W) + F.linear(h, U))
            elif self.style == "sliced":
                h = torch.clamp(x[:, t] @ W.t() + h @ U.t(), min=0)
            elif self.style == "added in place":
                z = F.linear(step, W)
                z += F.linear(h, U)
                h = z.relu()
            else:
                h = torch.relu(torch.add(F.linear(h, U), projected[t]))
        return self.out(h)


def naive_recurrence(model, x, target, hidden_rule, input_rule):
    """Relevance of one sequence (T, inputs); rules are functions (J, a, b, R)."""
    J, V = model.both.weight.detach().numpy(), model.out.weight.detach().numpy()
    x, h = x.numpy(), [np.zeros(model.hidden)]
    for step in x:
        h.append(np.maximum(J @ np.concatenate([step, h[-1]]), 0))
    R = np.zeros(len(V))
    R[target] = max((V @ h[-1])[target], 0)
    R = hidden_rule(V, h[-1], np.zeros(len(V)), R)
    result = np.zeros_like(x)
    for t in reversed(range(len(x))):
        R = input_rule(J, np.concatenate([x[t], h[t]]), np.zeros(len(J)), R)
        result[t], R = R[: model.inputs], R[model.inputs :]
    return result


def both(rule):
    return rule, rule


METHODS = {
    "z+": (LRP(ZPlus()), lambda n: both(naive.z_plus)),
    "alpha-beta": (LRP(alpha=1.5, beta=0.5), lambda n: both(lambda *a: naive.alpha_beta(*a, 1.5, 0.5))),
    "epsilon": (LRP(Epsilon(1e-3), start="positive"), lambda n: both(lambda *a: naive.epsilon_rule(*a, 1e-3))),
    "deep Taylor": (
        DeepTaylor(LOW, HIGH),
        lambda m: (
            naive.z_plus,
            lambda *a: naive.mixed_box_plus(*a, np.arange(m.inputs + m.hidden) < m.inputs, LOW, HIGH),
        ),
    ),
}
STYLES = ["concatenated", "inplace", "sum", "sliced", "projected", "added in place"]


@settings(deadline=None, max_examples=120)
@given(
    inputs=st.integers(1, 5),
    hidden=st.integers(1, 6),
    classes=st.integers(1, 4),
    steps=st.integers(1, 5),
    style=st.sampled_from(STYLES),
    method=st.sampled_from(sorted(METHODS)),
    seed=st.integers(0, 10**6),
)
def test_random_recurrences_equal_naive_algebra(inputs, hidden, classes, steps, style, method, seed):
    torch.manual_seed(seed)
    model = ReLURecurrence(inputs, hidden, classes, style).double()
    x = torch.rand(3, steps, inputs, dtype=torch.float64) * (HIGH - LOW) + LOW
    target = torch.randint(classes, (3,))
    attributor, naive_rules = METHODS[method]
    relevance = attributor(model, x, target)
    for b in range(3):
        expected = naive_recurrence(model, x[b], int(target[b]), *naive_rules(model))
        np.testing.assert_allclose(relevance[b].numpy(), expected, rtol=1e-8, atol=1e-11)


class GatedCell(nn.Module):
    """A ReLU LSTM with gates, in two ways of writing it."""

    def __init__(self, inputs, units, classes, style):
        super().__init__()
        self.style, self.units, self.inputs = style, units, inputs
        self.gates = nn.Linear(inputs + units, 3 * units)
        self.candidate = nn.Linear(inputs + units, units, bias=False)
        self.out = nn.Linear(units, classes, bias=False)

    def forward(self, x):
        h = c = x.new_zeros(len(x), self.units)
        for step in x.unbind(1):
            joined = torch.cat([step, h], 1)
            if self.style == "chunk after":
                i, f, o = torch.sigmoid(self.gates(joined)).chunk(3, 1)
            else:
                i, f, o = (part.sigmoid() for part in self.gates(joined).split(self.units, 1))
            signal = F.relu(self.candidate(joined))
            # A cell without a forget gate of its own: 1 - i, as in a GRU, with the style "coupled".
            forget = 1 - i if self.style == "coupled" else f
            c = forget * c + signal * i
            h = o * c
        return self.out(h)


def naive_gated(model, x, target):
    """z+ for the candidate and the output, gates ignored, c's sum in proportion."""
    G, g0 = (p.detach().numpy() for p in (model.gates.weight, model.gates.bias))
    C, V = model.candidate.weight.detach().numpy(), model.out.weight.detach().numpy()
    u, x = model.units, x.numpy()
    h, c, record = np.zeros(u), np.zeros(u), []
    for step in x:
        joined = np.concatenate([step, h])
        i, f, o = np.split(1 / (1 + np.exp(-(G @ joined + g0))), 3)
        if model.style == "coupled":
            f = 1 - i
        kept, new = f * c, i * np.maximum(C @ joined, 0)
        record.append((joined, kept, new))
        c = kept + new
        h = o * c
    R = np.zeros(len(V))
    R[target] = max((V @ h)[target], 0)
    R_c = naive.z_plus(V, h, np.zeros(len(V)), R)
    result = np.zeros_like(x)
    for t in reversed(range(len(x))):
        joined, kept, new = record[t]
        total = np.where(kept + new == 0, 1, kept + new)
        R_joined = naive.z_plus(C, joined, np.zeros(u), R_c * new / total)
        result[t] = R_joined[: model.inputs]
        R_c = R_c * kept / total + R_joined[model.inputs :]  # what reaches h_{t-1} goes to c_{t-1}
    return result


@settings(deadline=None, max_examples=40)
@given(
    style=st.sampled_from(["chunk after", "split before", "coupled"]),
    units=st.integers(1, 5),
    steps=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
def test_gates_get_nothing_and_signals_all(style, units, steps, seed):
    torch.manual_seed(seed)
    model = GatedCell(4, units, 3, style).double()
    x = torch.rand(2, steps, 4, dtype=torch.float64)
    relevance = LRP(ZPlus())(model, x, 1)
    for b in range(2):
        np.testing.assert_allclose(relevance[b].numpy(), naive_gated(model, x[b], 1), rtol=1e-8, atol=1e-11)


def test_a_shared_module_equals_deep_copies_unrolled_in_time():
    import copy

    shared = nn.Linear(7, 4, bias=False).double()
    out = nn.Linear(4, 3, bias=False).double()
    x = torch.rand(5, 6, 3, dtype=torch.float64)

    class Unrolled(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers, self.out = layers, out

        def forward(self, x):
            h = x.new_zeros(len(x), 4)
            for layer, step in zip(self.layers, x.unbind(1), strict=True):
                h = torch.relu(layer(torch.cat([step, h], 1)))
            return self.out(h)

    one = Unrolled([shared] * 6)
    many = Unrolled(nn.ModuleList(copy.deepcopy(shared) for _ in range(6)))
    for method in (LRP(ZPlus()), LRP(AlphaBeta(2, 1)), LRP(Epsilon()), DeepTaylor(0, 1)):
        torch.testing.assert_close(method(one, x, 0), method(many, x, 0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", [LRP(ZPlus()), DeepTaylor()])
def test_relevance_of_every_time_step_adds_up(method):
    """What reaches h_t is what goes on to x_t and to h_{t-1}."""
    model = ReLURecurrence(6, 9, 4, "concatenated").double()
    x = torch.rand(3, 7, 6, dtype=torch.float64) * 2 - 1
    explanation = method.explain(model, x, layers=["relu", "both"])
    at_step = torch.stack([part.sum(1) for part in explanation.layers["relu"]])  # (T, B)
    pixels = explanation.relevance.sum(2).T
    before = torch.cat([torch.zeros(1, 3, dtype=torch.float64), at_step[:-1]])
    # Where no contribution is positive, z+ gives nothing: only units with relevance count.
    torch.testing.assert_close(at_step, pixels + before, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(at_step[-1], explanation.explained, rtol=1e-10, atol=1e-12)
    pre = torch.stack([part.sum(1) for part in explanation.layers["both"]])
    torch.testing.assert_close(pre, at_step, rtol=1e-10, atol=1e-12)
