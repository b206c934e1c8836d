"""Units that ReLU has switched off, in float32: shortcuts for active units must not be taken for them.

`Flat` gives relevance to a unit whatever its value is, so it reaches units that are off; their contributions may be
of one sign only, which alpha-beta treats in its own way.
"""

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    DeepTaylor,
    Epsilon,
    Flat,
    Gamma,
    InChunks,
    ZBox,
    ZPlus,
)


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
    """A unit that gets only negative contributions, next to one that gets both."""
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


FILLING = {
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "log-sigmoid": F.logsigmoid,
    "hard sigmoid": F.hardsigmoid,
    "logsumexp": lambda h: h.view(len(h), 4, 2).logsumexp(2),
    "logaddexp": lambda h: torch.logaddexp(h[:, :4], h[:, 4:]),
    "max pooling, sigmoid": lambda h: F.max_pool1d(h.unsqueeze(1), 2).squeeze(1).sigmoid(),
    "cummax, sigmoid": lambda h: h.cummax(1)[0].sigmoid(),
    "moved, sigmoid": lambda h: h.flip(1)[:, 2:].relu().sigmoid(),
    "minimum, sigmoid": lambda h: torch.minimum(h[:, :4], h[:, 4:]).sigmoid(),
}


class Fills(nn.Module):
    """A network without biases that reads ReLUs by a function that is not 0 at 0."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.function = nn.Linear(6, 8, bias=False), function
        self.last = nn.Linear(function(torch.zeros(1, 8)).shape[1], 2, bias=False)

    def forward(self, x):
        return self.last(self.function(torch.relu(self.first(x))))


@pytest.mark.parametrize(
    "rule", [Epsilon(0), Gamma(0.25), AlphaBeta(2, 1)], ids=["epsilon", "gamma", "alpha-beta"]
)
@pytest.mark.parametrize("function", FILLING)
def test_units_that_are_off_may_get_relevance(function, rule):
    """Where what ReLU gives is read by a function that is not 0 at 0. Then all of it must be passed on."""
    model, x = Fills(FILLING[function]).double(), torch.randn(5, 6, dtype=torch.float64)
    explanation = LRP(rule, start="logit").explain(model, x, 1)
    torch.testing.assert_close(explanation.relevance.sum(1), explanation.explained, rtol=1e-8, atol=1e-10)


MASKS = {
    "a mask": lambda h, mask: h * mask,
    "a mask of all examples": lambda h, mask: h * mask.expand_as(h),
    "a mask in place": lambda h, mask: h.clone().mul_(mask),
    "a closed gate": lambda h, mask: h * F.hardsigmoid(8 * mask * h.detach().abs().clamp(min=1) - 4),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU(), nn.Identity()])
@pytest.mark.parametrize("read", [torch.sigmoid, F.softplus, lambda h: torch.logsumexp(h, -1, keepdim=True)])
def test_what_a_mask_hides_gets_nothing(name, activation, read):
    """A sigmoid of 0 is not 0, but it does not depend on the time step that was multiplied by 0."""
    torch.manual_seed(0)
    layer, out, mask = nn.Linear(3, 4), nn.LazyLinear(2), torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1)

    class Masked(nn.Module):
        def forward(self, x):
            return out(read(MASKS[name](activation(layer(x)), mask)).flatten(1))

    x = torch.randn(2, 3, 3)
    for rule in (Epsilon(1e-6), ZPlus(), AlphaBeta(2, 1), Gamma(0.25)):
        relevance = LRP(rule, start="logit")(Masked(), x, 0)
        assert relevance[:, 1].abs().max() == 0
        assert relevance[:, ::2].abs().amax((0, 2)).min() > 0
