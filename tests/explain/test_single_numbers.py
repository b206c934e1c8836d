"""A tensor without dimensions is summed, normed and repeated like one with a single entry."""

import pytest
import torch
from readers import assert_equal
from torch import nn
from two_layers import METHODS

WAYS = {
    "repeat": lambda s: s.repeat(3),
    "tile": lambda s: torch.tile(s, (2, 3))[1],
    "repeat_interleave": lambda s: s.repeat_interleave(3),
    "sum": lambda s: s.sum(0).expand(3),
    "mean": lambda s: s.mean(-1, keepdim=True).expand(3),
    "norm": lambda s: s.sign() * s.norm(dim=0).expand(3),
    "vector norm": lambda s: s.sign() * torch.linalg.vector_norm(s, dim=-1).expand(3),
    "a variance of 0": lambda s: s.expand(3) / (1 + s.var(0, correction=0)),
    "both moments": lambda s: torch.std_mean(s, 0, correction=0)[1].expand(3),
}


class Network(nn.Module):
    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.out, self.way = nn.Linear(5, 4), nn.Linear(3, 2), way
        self.double()

    def forward(self, x):
        number = self.first(x).relu().sum()
        return self.out(self.way(number))[None]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_a_single_number(name, way):
    x = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_equal(*(METHODS[name]()(Network(each), x, 1) for each in (WAYS[way], lambda s: WAYS[way](s[None]))))
