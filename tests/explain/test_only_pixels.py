"""Pixels in a buffer, or chosen from a tensor that holds features, too, are pixels and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from readers import assert_equal
from torch import nn
from two_layers import METHODS

from rnnx_lightning.explain import LRP, Composite, Epsilon, ZPlus


class Network(nn.Module):
    """A layer that reads pixels, and one that reads features, after `moved` has brought both together."""

    def __init__(self, moved):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.pixels, self.features = nn.Linear(5, 5), nn.Linear(4, 6), nn.Linear(5, 6)
        self.out, self.moved = nn.Linear(6, 3), moved
        self.double()

    def forward(self, x):
        x, h = self.moved(x, self.first(x).relu())
        return self.out(self.pixels(F.max_pool1d(x, 2, 1)).relu() + self.features(h).relu())


def filled(x, h):
    buffer = torch.full_like(x, 0.5)
    for i in range(5):
        buffer[:, i] = x[:, i]
    return buffer, h


def filled_again(x, h):
    buffer = 1 * x
    buffer[:, 3:] = h[:, 3:]
    buffer[:, :3] = h[:, :3]
    return x, buffer


def interleaved(x, h):
    both = torch.cat([x, h], 1)[:, [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]]
    return both[:, ::2], both[:, 1::2]


WAYS = {
    "a buffer full of pixels": filled,
    "a buffer of pixels, filled with features": filled_again,
    "interleaved": interleaved,
}


def data():
    return torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_only_pixels(name, way):
    ways = (Network(lambda x, h: (x, h)), Network(WAYS[way]))
    assert_equal(*(METHODS[name]()(model, data(), 0) for model in ways))


def test_rules_that_divide_in_other_ways_do_not_meet():
    """Each of the two layers has its own rule: no sum needs a common one."""
    composite = Composite(ZPlus(), pixels=Epsilon(0))
    ways = (Network(lambda x, h: (x, h)), Network(interleaved))
    assert_equal(*(LRP(composite, start="logit")(model, data(), 0) for model in ways))


def test_features_times_zero_among_pixels():
    """Constants stay where all pixels are missing."""

    class Masked(nn.Module):
        def forward(self, x):
            one = torch.ones_like(x[:, :1])
            return torch.cat([x, one], 1)[:, 4:] * torch.tensor([0.0, 1.0], dtype=torch.float64)

    assert not LRP(ZPlus(), start="logit")(Masked(), data(), 1).any()
