"""Constants in the place of pixels that are missing, masked or padded take their share; such pixels take nothing."""

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from two_layers import METHODS

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, ZBox, ZPlus

MASK = torch.tensor([[1.0, 0, 1, 0, 1, 1], [0, 1, 1, 1, 0, 1]], dtype=torch.float64)
FILLED = torch.tensor([0.5, -1, 2, 1.5, -0.7, 0.3], dtype=torch.float64)
SPELLINGS = {
    "where": lambda x, m, b: torch.where(m > 0, x, b),
    "masked_fill": lambda x, m, b: x.masked_fill(m == 0, 0.0) + (1 - m) * b,
    "mask times pixels": lambda x, m, b: m * x + (1 - m) * b,
    "mask times a difference": lambda x, m, b: b + m * (x - b),
    "lerp": lambda x, m, b: torch.lerp(b.expand_as(x), x, m),
    "two scales": lambda x, m, b: 0.5 * (2 * m * x) + b - m * b,
}


class Network(nn.Module):
    def __init__(self, fill):
        super().__init__()
        torch.manual_seed(0)
        self.fill = fill
        self.out = nn.Linear(6, 3, bias=False).double()

    def forward(self, x, m):
        return self.out(self.fill(x, m, FILLED))


def book(J, a, R, seen, rule):
    """The relevance by the book of one example; what constants get is lost."""
    none = np.zeros(len(J))
    match rule:
        case Composite():
            result = naive.mixed_box_plus(J, a, none, R, seen, -2, 2)
        case ZPlus():
            result = naive.z_plus(J, a, none, R)
        case AlphaBeta():
            result = naive.alpha_beta(J, a, none, R, rule.alpha, rule.beta)
        case Epsilon():
            result = naive.epsilon_rule(J, a, none, R, rule.epsilon)
        case _:
            result = naive.gamma_rule(J, a, none, R, rule.gamma)
    return np.where(seen, result, 0)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "rule", [Epsilon(0.1), Gamma(0.5), ZPlus(), AlphaBeta(1.5, 0.5), Composite(ZPlus(), pixels=ZBox(-2, 2))]
)
def test_missing_pixels_take_nothing(rule, spelling):
    model = Network(SPELLINGS[spelling])
    x = torch.rand(2, 6, dtype=torch.float64) * 4 - 2
    logits = model(x, MASK).detach()
    relevance = LRP(rule, start="logit")(model, x, 1, m=MASK)
    J, a = model.out.weight.detach().numpy()[1:2], torch.where(MASK > 0, x, FILLED).numpy()
    expected = [
        book(J, one, number.numpy()[1:2], seen.numpy() > 0, rule)
        for one, number, seen in zip(a, logits, MASK, strict=True)
    ]
    torch.testing.assert_close(relevance, torch.tensor(np.array(expected)))


class Shifted(nn.Module):
    def __init__(self, shift):
        super().__init__()
        torch.manual_seed(1)
        self.shift = shift
        self.conv, self.out = nn.Conv1d(2, 3, 3).double(), nn.Linear(18, 3).double()

    def forward(self, x):
        return self.out(self.conv(self.shift(x)).relu().flatten(1))


MEAN = torch.tensor([[0.3], [-0.4]], dtype=torch.float64)
SHIFTS = {
    "side by side": lambda x: torch.cat([MEAN.expand(len(x), 2, 1), x + MEAN, MEAN.expand(len(x), 2, 1)], 2),
    "padded, then shifted": lambda x: F.pad(x, (1, 1)) + MEAN,
    "scaled, padded, then shifted": lambda x: F.pad(2 * x, (1, 1)) / 2 - (-MEAN),
    "a mask before": lambda x: F.pad(x, (1, 1), value=7.0) * torch.tensor([0.0, *[1] * 6, 0]) + MEAN,
}


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_padding_that_is_shifted_is_a_constant(name, shift):
    torch.manual_seed(2)
    x = torch.rand(3, 2, 6, dtype=torch.float64) * 2 - 1
    expected, relevance = (METHODS[name]()(Shifted(SHIFTS[way]), x, 0) for way in ("side by side", shift))
    torch.testing.assert_close(relevance, expected)
