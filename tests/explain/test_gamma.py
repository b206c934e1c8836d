"""Gamma on values of both signs against zennit."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zennit.core
import zennit.rules
from readers import assert_equal
from torch import nn
from two_layers import data, network
from zennit.attribution import Gradient

from rnnx_lightning.explain import LRP, Gamma


def zennit_gamma(model, x, target):
    def choose(ctx, name, module):
        if isinstance(module, nn.Linear):
            return zennit.rules.Gamma(0.25, stabilizer=1e-14)
        return zennit.rules.Pass() if not list(module.children()) else None

    start = model(x).detach() * F.one_hot(target, 3)
    with Gradient(model=model, composite=zennit.core.Composite(module_map=choose)) as attributor:
        return attributor(x.clone(), start)[1]


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.LeakyReLU])
@pytest.mark.parametrize("bias", [False, True])
def test_gamma_is_zennits(bias, act):
    """It favours contributions of the sign of the sum."""
    model, (x, target) = network(act, bias), data()
    assert_equal(LRP(Gamma(0.25))(model, x, target), zennit_gamma(model, x, target))


def test_gamma_does_not_explode():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False)).double()
    model[0].weight.data[:] = torch.tensor([[4.001, -5.0]])
    model[2].weight.data.fill_(-1.0)
    relevance = LRP(Gamma(0.25))(model, torch.ones(1, 2, dtype=torch.float64), 0)
    np.testing.assert_allclose(relevance, [[-1.35413, 2.11530]], atol=2e-5)
