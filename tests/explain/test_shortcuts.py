"""What ReLU follows is explained by fewer sums: they give the same relevance as all of them.

All sums are made when the relevance of a layer is asked for, and where no ReLU follows.
"""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, DeepTaylor, Epsilon, Gamma, ZPlus


class Sums(nn.Module):
    """ReLU of a sum of linear maps of a hidden layer (B, 3, 6), and a linear output."""

    def __init__(self, function):
        super().__init__()
        self.first = nn.Linear(4, 18)
        self.a, self.b = nn.Linear(6, 5, bias=False), nn.Linear(6, 5, bias=False)
        self.biased, self.wide = nn.Linear(6, 5), nn.Linear(6, 10, bias=False)
        self.gate = nn.Linear(6, 5)
        self.output = nn.Linear(5, 3, bias=False)
        self.output.weight.data.abs_()  # so that there is relevance
        self.function = function

    def forward(self, x):
        hidden = torch.relu(self.first(x)).unflatten(1, (3, 6))
        return self.output(torch.relu(self.function(self, hidden)).sum(1))


SUMS = {
    "one map": lambda m, h: m.a(h),
    "two maps": lambda m, h: m.a(h) + m.b(h),
    "a map and one with a bias": lambda m, h: m.a(h) + m.biased(h),
    "three maps": lambda m, h: m.a(h) + (m.b(h) + m.biased(h)),
    "plus a constant": lambda m, h: m.a(h) + 0.3 + m.b(h),
    "minus a constant": lambda m, h: (m.a(h) + m.b(h)) - torch.linspace(-1, 1, 5, dtype=h.dtype),
    "with the layer itself": lambda m, h: m.a(h) + h[..., :5],
    "scaled": lambda m, h: 0.5 * (m.a(h) + m.b(h)) + m.b(h) * 2,
    "gated": lambda m, h: torch.sigmoid(m.gate(h)) * (m.a(h) + m.b(h)) + m.b(h),
    "parts": lambda m, h: torch.cat([m.wide(h)[..., :2] + m.a(h)[..., :2], m.biased(h)[..., :3]], dim=-1),
    "chunks": lambda m, h: m.wide(h).chunk(2, dim=-1)[0] + m.wide(h).chunk(2, dim=-1)[1],
    "steps": lambda m, h: torch.stack([m.a(h).unbind(1)[0] + m.b(h[:, 1]), m.b(h[:, 2]), m.biased(h[:, 0])], 1),
    "broadcast": lambda m, h: (m.a(h) + m.b(h[:, :1])).unbind(1)[2].unsqueeze(1),
    "broadcast constant": lambda m, h: (m.a(h[:, :1]) + torch.ones(3, 5, dtype=h.dtype)).transpose(1, 2).mT,
}
RULES = {
    "AlphaBeta": AlphaBeta(2, 1),
    "Epsilon": Epsilon(0.1),
    "Epsilon 0": Epsilon(0),
    "ZPlus": ZPlus(),
    "Gamma": Gamma(0.5),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sums", SUMS)
def test_shortcuts_change_nothing(sums, rule):
    torch.manual_seed(0)
    model, x = Sums(SUMS[sums]).double(), torch.rand(8, 4, dtype=torch.float64) * 2 - 1
    explain = LRP(RULES[rule])
    expected = explain.explain(model, x, 1, layers="first").relevance
    assert expected.abs().sum() > 0.05
    torch.testing.assert_close(explain(model, x, 1), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("sums", SUMS)
def test_shortcuts_change_nothing_where_pixels_and_features_are_summed(sums):
    class OnPixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Sums(SUMS[sums])

        def forward(self, x):
            pixels = x.unflatten(1, (3, 6))
            hidden = torch.relu(self.inner.first(pixels.flatten(1)[:, :4])).unflatten(1, (3, 6))
            return self.inner.output(
                torch.relu(self.inner.function(self.inner, pixels) + self.inner.a(hidden)).sum(1)
            )

    torch.manual_seed(0)
    model, x = OnPixels().double(), torch.rand(8, 18, dtype=torch.float64) * 2 - 1
    for explain in (DeepTaylor(), LRP(alpha=1.5, beta=0.5)):
        expected = explain.explain(model, x, 1, layers="inner.first").relevance
        torch.testing.assert_close(explain(model, x, 1), expected, rtol=1e-7, atol=1e-9)
