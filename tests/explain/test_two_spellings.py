"""A function has one relevance, in whichever of two ways a network writes it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, ZPlus

RULES = [ZPlus(), Epsilon(1e-12), AlphaBeta(2, 1), Gamma(0.25)]
names = {rule: type(rule).__name__ for rule in RULES}


class Reader(nn.Module):
    """A convolution, something in the middle, and a linear layer."""

    def __init__(self, middle):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.middle = nn.Conv2d(1, 3, 3), middle
        self.out = nn.LazyLinear(2)
        self.double()
        with torch.no_grad():
            self(torch.zeros(2, 1, 8, 8, dtype=torch.float64))
            self.out.weight.normal_()

    def forward(self, x):
        return self.out(self.middle(self.conv(x)).flatten(1))


def average(h):
    return F.conv2d(h, torch.full((3, 1, 2, 2), 0.25, dtype=h.dtype), stride=2, groups=3)


def largest(h):
    return h.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).amax(-1)


def running(h):
    return h @ torch.ones(6, 6, dtype=h.dtype).triu()


SPELLINGS = {
    "mean of gates": (lambda h: F.avg_pool2d(h.sigmoid(), 2), lambda h: average(h.sigmoid())),
    "mean of gates over a dimension": (
        lambda h: h.sigmoid().mean(-1),
        lambda h: h.sigmoid() @ torch.full((6, 1), 1 / 6, dtype=h.dtype),
    ),
    "largest gate": (lambda h: F.max_pool2d(h.sigmoid(), 2), lambda h: largest(h.sigmoid())),
    "running sum of gates": (lambda h: h.sigmoid().cumsum(-1), lambda h: running(h.sigmoid())),
    "mean of absolute values": (lambda h: F.avg_pool2d(h.abs(), 2), lambda h: average(h.relu() + (-h).relu())),
}


@pytest.mark.parametrize("rule", RULES, ids=names.get)
@pytest.mark.parametrize("what", SPELLINGS)
def test_two_spellings_have_one_relevance(what, rule):
    one, other = (Reader(middle) for middle in SPELLINGS[what])
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(one(x), other(x))
    method = LRP(Composite(rule), start="logit")
    relevance = method(one, x, 1)
    assert bool((relevance != 0).any())
    torch.testing.assert_close(relevance, method(other, x, 1), rtol=1e-6, atol=1e-9 * float(relevance.abs().max()))
