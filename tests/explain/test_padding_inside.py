"""Padding is padding still after an activation, a scale, a sum or a mean: no share of a bias is lost on it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Flat, Gamma, ZPlus


def padded(h):
    return F.pad(h, (1, 1))


def nowhere(h):
    """Two places get no message."""
    return h.new_zeros(len(h), 6).index_add(1, torch.tensor([1, 2, 3, 4]), h)


INSIDE = {
    "padding": lambda h, g: padded(h),
    "ReLU": lambda h, g: padded(h).relu(),
    "tanh": lambda h, g: padded(h).tanh(),
    "scale": lambda h, g: padded(h) * 2.5 / 3,
    "gate": lambda h, g: padded(h) * g.sigmoid(),
    "gated activation": lambda h, g: padded(h.tanh()) * g.sigmoid(),
    "sum": lambda h, g: padded(h) - padded(h.tanh()),
    "moving state": lambda h, g: torch.lerp(padded(h.tanh()), padded(h), g.sigmoid()),
    "mean": lambda h, g: torch.stack([padded(h), padded(2 * h.tanh())]).mean(0),
    "pooling": lambda h, g: F.avg_pool1d(padded(h).unsqueeze(1), 1).squeeze(1),
    "running sum": lambda h, g: torch.cumsum(padded(h), 1),
    "zeros joined": lambda h, g: torch.cat([torch.zeros(len(h), 2), h.tanh()], 1).relu(),
    "messages": lambda h, g: nowhere(h),
    "messages, summed": lambda h, g: nowhere(h.tanh()) + nowhere(h),
}


class Network(nn.Module):
    def __init__(self, inside, reads_pixels):
        super().__init__()
        torch.manual_seed(0)
        self.inside = inside
        self.first = nn.Identity() if reads_pixels else nn.Linear(4, 4)
        self.gate, self.middle, self.out = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.double()

    def forward(self, x):
        return self.out(self.middle(self.inside(self.first(x), self.gate(x))).tanh())


@pytest.mark.parametrize("reads_pixels", [False, True])
@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), AlphaBeta(2, 1)])
def test_spread_biases_add_up_to_the_logit(rule, inside, reads_pixels):
    model = Network(INSIDE[inside], reads_pixels)
    x = torch.randn(3, 4, dtype=torch.float64)
    relevance = LRP(Composite(rule, bias="spread"), start="logit")(model, x, 0)
    torch.testing.assert_close(relevance.sum(1), model(x)[:, 0].detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inside", ["padding", "ReLU", "gated activation", "sum", "mean", "messages"])
def test_flat_shares_with_no_padding(inside):
    """Where all inputs of a layer get the same, those that are there get all."""
    model = Network(INSIDE[inside], False)
    x = torch.randn(3, 4, dtype=torch.float64)
    rules = Composite(Epsilon(1e-9), by_name={"middle": Flat()}, bias="ignore")
    relevance = LRP(rules, start="logit").explain(model, x, 0, layers=["middle", "first"])
    at_middle, at_first = relevance.layers["middle"][0], relevance.layers["first"][0]
    torch.testing.assert_close(at_first.sum(1), at_middle.sum(1))
    if inside != "sum":
        torch.testing.assert_close(at_first, at_middle.sum(1, keepdim=True).expand(-1, 4) / 4)
