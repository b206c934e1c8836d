"""Baselines and captum's methods on inputs of any structure, and on tokens."""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import Captum, Input, Random, UnexplainableError


class Sum(nn.Module):
    def forward(self, one, two):
        return one + two


@pytest.mark.parametrize("kind", [tuple, dict])
def test_structures(kind):
    parts = {"one": torch.rand(3, 2), "two": torch.rand(3, 2, dtype=torch.float64)}
    x = parts if kind is dict else tuple(parts.values())
    for method in (Random(), Input(background=0.5)):
        relevance = method(Sum(), x, 0)
        assert type(relevance) is kind
        values = relevance.values() if kind is dict else relevance
        for one, other in zip(values, parts.values(), strict=True):
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            assert isinstance(method, Random) or torch.equal(one, (other - 0.5).abs())


def test_tokens():
    model, x = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(12, 2)), torch.randint(5, (2, 4))
    assert Random()(model, x).is_floating_point()
    with pytest.raises(UnexplainableError, match="have no size"):
        Input()(model, x)
    with pytest.raises(UnexplainableError, match="Tokens have no gradient"):
        Captum("Saliency")(model, x, 1)
    assert Captum("FeatureAblation")(model, x, 1).shape == x.shape
