"""Absolute values, and bags of tokens: each against the same function written in other operations."""

import pytest
import torch
from readers import assert_equal
from torch import nn
from two_layers import METHODS, Last, data, network

from rnnx_lightning.explain import LRP, Composite, Epsilon, Gamma, ZPlus


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_an_absolute_value_is_two_rectified_units(name):
    model, (x, target), method = network(), data(), METHODS[name]()
    first, _, last = model
    absolute = Last(first, lambda z: last(z.abs()))
    rectified = Last(first, lambda z: last(z.relu() + (-z).relu()))
    closed = Last(first, lambda z: (z.relu() @ last.weight.T + (-z).relu() @ last.weight.T) + last.bias)
    torch.testing.assert_close(absolute(x), rectified(x))
    assert_equal(method(absolute, x, target), method(closed, x, target))


def test_what_an_absolute_value_scales_takes_nothing_from_it():
    model, (x, target) = network(), data()
    scaled = Last(model[0], lambda z: model[2](z / z.abs().mean(1, keepdim=True)))
    held = Last(model[0], lambda z: model[2](z / z.abs().mean(1, keepdim=True).detach()))
    gradient = torch.autograd.functional.jacobian(lambda x: held(x).gather(1, target[:, None]).sum(), x)
    assert_equal(LRP(Epsilon(0.0), start="logit")(scaled, x, target), gradient * x, 1e-8)


class Bags(nn.Module):
    """Bags of tokens, by the fused module or by embeddings that are summed."""

    def __init__(self, fused, mode, padding=None):
        super().__init__()
        torch.manual_seed(0)
        self.bag = nn.EmbeddingBag(9, 6, mode=mode, padding_idx=padding, dtype=torch.float64)
        self.out = nn.Linear(6, 3, dtype=torch.float64)
        self.fused, self.mode, self.padding = fused, mode, padding

    def forward(self, tokens, weights=None):
        if self.fused:
            return self.out(self.bag(tokens, per_sample_weights=weights))
        vectors = nn.functional.embedding(tokens, self.bag.weight)
        counted = torch.ones(tokens.shape).double() if self.padding is None else (tokens != self.padding).double()
        counted = counted if weights is None else counted * weights
        counted = counted / counted.sum(1, keepdim=True) if self.mode == "mean" else counted
        return self.out((vectors * counted.unsqueeze(-1)).sum(1))


@pytest.mark.parametrize("rule", [ZPlus(), Epsilon(0.01), Gamma()], ids=["z+", "epsilon", "gamma"])
@pytest.mark.parametrize("spread", ["share", "spread"])
@pytest.mark.parametrize(
    ("mode", "padding", "weighted"), [("sum", None, True), ("sum", 0, False), ("mean", 0, False)]
)
def test_bags_of_tokens(mode, padding, weighted, spread, rule):
    tokens = torch.tensor([[1, 2, 0, 3, 2], [4, 0, 5, 0, 8], [7, 7, 7, 6, 1]])
    given = {"weights": torch.randn(3, 5, dtype=torch.float64)} if weighted else {}
    method = LRP(Composite(rule, bias=spread), start="logit")
    fused, written = (Bags(how, mode, padding) for how in (True, False))
    torch.testing.assert_close(fused(tokens, **given), written(tokens, **given))
    relevance = method(fused, tokens, 1, **given)
    assert_equal(relevance, method(written, tokens, 1, **given))
    if padding == 0 and spread == "share":
        assert bool((relevance[tokens == 0] == 0).all())


@pytest.mark.parametrize("rule", [Epsilon(1e-9), ZPlus()])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("order", [float("inf"), float("-inf")])
def test_a_norm_of_infinite_order_is_the_largest_or_smallest_magnitude(order, keepdim, rule):
    torch.manual_seed(0)
    layer, out, x = nn.Linear(5, 12).double(), nn.Linear(3, 2).double(), torch.randn(4, 5, dtype=torch.float64)

    class Network(nn.Module):
        def __init__(self, length):
            super().__init__()
            self.layer, self.out, self.length = layer, out, length

        def forward(self, x):
            return self.out(self.length(self.layer(x).unflatten(1, (3, 4))).flatten(1))

    extreme = torch.amax if order > 0 else torch.amin
    norm = Network(lambda h: torch.linalg.vector_norm(h, order, 2, keepdim))
    expected = LRP(rule, start="logit")(Network(lambda h: extreme(h.abs(), 2, keepdim)), x, 1)
    torch.testing.assert_close(LRP(rule, start="logit")(norm, x, 1), expected)
