"""Units that ReLU has switched off, in float32: shortcuts for active units must not be taken for them.

`Flat` gives relevance to a unit whatever its value is, so it reaches units that are off; their contributions may be
of one sign only, which alpha-beta treats in its own way.
"""

import naive
import numpy as np
import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, DeepTaylor, Flat, InChunks, ZBox, ZPlus


def make(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False))
    return model, torch.rand(1, 3) * 2 - 1


def by_the_book(model, x, first):
    """Relevance by dense float64 algebra: flat on top, `first` below, of logit 0."""
    one, two = (layer.weight.detach().double().numpy() for layer in (model[0], model[2]))
    a = x[0].double().numpy()
    hidden = np.maximum(one @ a, 0)
    start = np.maximum(two @ hidden, 0) * np.array([1.0, 0.0])
    middle = naive.flat(two, hidden, np.zeros(2), start)
    return first(one, a, np.zeros(6), middle)


@pytest.mark.parametrize("seed", range(40))
def test_alpha_beta_below_flat(seed):
    model, x = make(seed)
    rules = Composite(AlphaBeta(2, 1), by_name={"2": Flat()})
    expected = by_the_book(model, x, lambda *layer: naive.alpha_beta(*layer, alpha=2, beta=1))
    np.testing.assert_allclose(LRP(rules)(model, x, 0)[0].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(40))
def test_z_box_below_flat(seed):
    model, x = make(seed)
    rules = Composite(ZPlus(), pixels=ZBox(-1, 1), by_name={"2": Flat()})
    expected = by_the_book(model, x, lambda *layer: naive.z_box(*layer, low=-1, high=1))
    np.testing.assert_allclose(LRP(rules)(model, x, 0)[0].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.LeakyReLU(0.3)])
def test_one_signed_units_below_any_activation(activation):
    """A unit that gets negative contributions alone, next to one that gets both."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), activation, nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-0.3, -0.7], [0.9, -0.1]]))
        model[2].weight.copy_(torch.tensor([[-1.0, 1.0]]))
    x = torch.tensor([[0.37, 0.81]])
    explanation = LRP(alpha=2, beta=1).explain(model, x, 0)
    torch.testing.assert_close(explanation.relevance.sum(), explanation.explained.sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", [None, 1, torch.tensor([0, 1, 1, 0, 1])])
def test_chunks_change_nothing(target):
    model = make(0)[0]
    x = torch.rand(5, 3) * 2 - 1
    torch.testing.assert_close(InChunks(DeepTaylor(), 2)(model, x, target), DeepTaylor()(model, x, target))


def test_a_chunk_needs_an_example():
    with pytest.raises(ValueError, match="examples=0"):
        InChunks(DeepTaylor(), 0)
