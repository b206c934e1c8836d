"""Memories of up to 10,000 steps: no recursion over time, and what closed forms in float64 NumPy say."""

import numpy as np
import pytest
import torch
from readers import assert_equal
from shares import Book, messages, share
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Epsilon, GradientTimesInput, ZPlus

LONG = [250, 1_000, 10_000]


class Memory(nn.Module):
    """c_t = keep_t c_{t-1} + write_t tanh(w x_t), read once, at the end; (B, T, 3) to (B, 2)."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.signal, self.gate = nn.Linear(3, 2, bias=False), nn.Linear(3, 2)
        self.out = nn.Linear(2, 2, bias=False)
        self.double()

    def factors(self, x):
        """keep and write, (B, T, 2) each."""
        f = torch.sigmoid(self.gate(x) + 3)
        one = torch.ones_like(f)
        return {
            "f c + (1 - f) z": (f, 1 - f),
            "f c + i z": (f, torch.sigmoid(self.gate(x.flip(2)))),
            ".9 c + .1 z": (0.9 * one, 0.1 * one),
            "c + z": (one, one),
        }[self.kind]

    def forward(self, x):
        signals = torch.tanh(self.signal(x)).unbind(1)
        c = x.new_zeros(len(x), 2)
        if self.kind == "c + z":
            for z in signals:
                c = c + z
        elif self.kind == ".9 c + .1 z":
            for z in signals:
                c = 0.9 * c + 0.1 * z
        else:
            keeps, writes = self.factors(x)
            for z, f, i in zip(signals, keeps.unbind(1), writes.unbind(1), strict=True):
                c = f * c + (1 - f) * z if self.kind == "f c + (1 - f) z" else f * c + i * z
        return self.out(torch.tanh(c))


KINDS = ["f c + (1 - f) z", "f c + i z", ".9 c + .1 z", "c + z"]


def closed_form(model, x, target, book):
    """Relevance of one example (T, 3): contributions write_s keep_{s+1} ... keep_T z_s of each unit."""
    with torch.no_grad():
        keep, write = (part[0].numpy() for part in model.factors(x[None]))
        z = torch.tanh(model.signal(x)).numpy()
    after = np.concatenate([np.cumprod(keep[:0:-1], 0)[::-1], np.ones((1, 2))])
    parts, W, V = after * write * z, model.signal.weight.detach().numpy(), model.out.weight.detach().numpy()
    h = np.tanh(parts.sum(0))
    R = share(V * h, np.zeros(2), np.where(np.arange(2) == target, V @ h, 0), book)
    at_z = messages(parts.T, np.zeros(2), R, book).T  # (T, 2)
    return np.array([share(W * step, np.zeros(2), r, book) for step, r in zip(x.numpy(), at_z, strict=True)])


@pytest.mark.parametrize("steps", LONG)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rule", "book"),
    [(Epsilon(0.0), Book()), (Epsilon(1e-3), Book(epsilon=1e-3)), (ZPlus(), Book("z+")), (AlphaBeta(1.5, 0.5), Book("alpha-beta", alpha=1.5, beta=0.5))],
    ids=["epsilon 0", "epsilon", "z+", "alpha-beta"],
)  # fmt: skip
def test_memories_equal_their_closed_form(rule, book, kind, steps):
    if steps == 10_000 and rule in (Epsilon(0.0), AlphaBeta(1.5, 0.5)):
        pytest.skip("two rules of so many steps are enough")
    model, x = Memory(kind), torch.randn(2, steps, 3, dtype=torch.float64)
    target = model(x).argmax(1)
    relevance = LRP(rule, start="logit")(model, x, target)
    expected = torch.tensor(
        np.array([closed_form(model, a, int(k), book) for a, k in zip(x, target, strict=True)])
    )
    assert_equal(relevance, expected, 1e-8)
    if rule != Epsilon(1e-3) and rule != ZPlus():  # z+ loses what a tanh unit without positive contributions has
        logits = model(x).gather(1, target[:, None])[:, 0].detach()
        torch.testing.assert_close(relevance.sum((1, 2)), logits, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("steps", [250, 1_000])
def test_residual_recurrences_are_gradient_times_input(steps):
    """x <- x + relu(V x + u_t), read at each step: under epsilon 0 a piecewise linear network."""
    torch.manual_seed(1)
    layer, inner, out = nn.Linear(3, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        inner.weight.mul_(0.02)

    class Residual(nn.Module):
        def forward(self, x):
            h = x.new_zeros(len(x), 4)
            for step in layer(x).unbind(1):
                h = h + torch.relu(inner(h) + 0.1 * step)
            return out(h)

    model, x = Residual(), torch.randn(2, steps, 3, dtype=torch.float64)
    for part in (layer, inner, out):
        part.double()
    target = model(x).argmax(1)
    relevance = LRP(Epsilon(0.0), start="logit")(model, x, target)
    assert_equal(relevance, GradientTimesInput()(model, x, target), 1e-7)


class Halving(nn.Module):
    """c_t = sigmoid(0 x_t) c_{t-1} + .5 tanh(x_t): what was first is halved at each step. Explains -tanh(c_T)."""

    def forward(self, x):
        c = x.new_zeros(len(x), 1)
        for step in x.unbind(1):
            c = torch.sigmoid(0.0 * step) * c + 0.5 * torch.tanh(step)
        return torch.tanh(c) @ x.new_full((1, 1), -1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [100, 140, 160, *LONG])
def test_all_goes_to_the_only_positive_step_or_is_missed(steps, dtype):
    """All steps speak against but the first: by z+ it takes all, be it 2^-250 of the sum; if it is lost, all is."""
    x = -torch.ones(1, steps, 1, dtype=dtype)
    x[:, 0] = 1
    explanation = LRP(ZPlus(), start="logit").explain(Halving(), x, 0)
    relevance = explanation.relevance[0, :, 0]
    assert (relevance[1:] == 0).all()
    if steps <= 250:
        torch.testing.assert_close(relevance[0], explanation.explained[0])
    else:
        assert relevance[0] == 0 or torch.isclose(relevance[0], explanation.explained[0])
