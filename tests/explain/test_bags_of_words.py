"""Tokens that are counted have the relevance of tokens that are looked up; where counts scale, they have none."""

import pytest
import torch
import torch.nn.functional as F
from readers import assert_equal
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, ZPlus

KINDS = 9
METHODS = {
    "epsilon": LRP(Epsilon(0.0)),
    "z+": LRP(ZPlus(), start="logit"),
    "alpha-beta": LRP(AlphaBeta(1.5, 0.5), start="logit"),
    "gamma": LRP(Composite(Gamma(0.25), bias="ignore")),
    "with a graph": LRP(Epsilon(0.0), create_graph=True),
}
TOKENS = torch.tensor([[1, 2, 2, 0], [4, 5, 0, 0], [8, 7, 6, 5]])
NUMBERS = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
BAGS = {
    "scatter_add": lambda t: torch.zeros(3, KINDS).double().scatter_add(1, t, torch.ones(3, 4).double()),
    "in place": lambda t: torch.zeros(3, KINDS).double().scatter_add_(1, t, torch.ones(3, 4).double()),
    "whole numbers": lambda t: torch.zeros_like(t).new_zeros(3, KINDS).scatter_add_(1, t, torch.ones_like(t)).double(),
    "index_put": lambda t: torch.zeros(3, KINDS).double().index_put(
        (torch.arange(3)[:, None], t), torch.ones(()).double(), accumulate=True
    ),
    "one-hot vectors": lambda t: F.one_hot(t, KINDS).sum(1).double(),
    "frequencies": lambda t: 4 * F.normalize(
        torch.zeros(3, KINDS).double().scatter_add(1, t, torch.ones(3, 4).double()), p=1, dim=1
    ),
}  # fmt: skip


class Bag(nn.Module):
    """A bag of words beside numbers, so that tokens without relevance are not noticed."""

    def __init__(self, read):
        super().__init__()
        torch.manual_seed(0)
        self.read, self.table, self.out = read, nn.Parameter(torch.randn(KINDS, 4)), nn.Linear(4, 3)
        self.double()

    def forward(self, tokens, numbers):
        return self.out(self.read(tokens, self.table) + numbers)


@pytest.mark.parametrize("bag", BAGS)
@pytest.mark.parametrize("method", METHODS)
def test_a_bag_of_words_is_a_sum_of_vectors(method, bag):
    counted = Bag(lambda t, table: BAGS[bag](t) @ table)
    summed = Bag(lambda t, table: F.embedding(t, table).sum(1))
    with torch.no_grad():
        torch.testing.assert_close(counted(TOKENS, NUMBERS), summed(TOKENS, NUMBERS))
    pair = TOKENS, NUMBERS
    for one, other in zip(METHODS[method](counted, pair, 1), METHODS[method](summed, pair, 1), strict=True):
        assert_equal(one, other)


class Messages(nn.Module):
    """The mean of what each node is sent; edges are tokens."""

    def __init__(self, counts):
        super().__init__()
        torch.manual_seed(0)
        self.counts, self.one, self.out = counts, nn.Linear(4, 5).double(), nn.Linear(5, 2).double()

    def forward(self, x, edges):
        start, stop = edges.unbind(1)
        hidden = self.one(x)[start]
        sums = hidden.new_zeros(3, 5).index_add(0, stop.detach().clone(), hidden)
        counts = (
            sums.new_zeros(3).scatter_add(0, stop, sums.new_ones(3)) if self.counts else sums.new_tensor([1, 1, 1])
        )
        return self.out((sums / counts.clamp(min=1).unsqueeze(1)).relu())


def test_the_number_of_messages_has_none():
    pair = NUMBERS, torch.tensor([[0, 1], [1, 2], [2, 0]])
    for method in METHODS.values():
        for one, other in zip(method(Messages(True), pair, 1), method(Messages(False), pair, 1), strict=True):
            assert torch.allclose(one, other)
