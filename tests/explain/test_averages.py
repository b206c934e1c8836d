"""Integrated gradients with baselines of all kinds."""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import IntegratedGradients


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


@pytest.mark.parametrize("shape", [(), (5,), (1, 5), (4, 5), (4, 1)])
def test_completeness_from_a_tensor(model, shape):
    """Relevance adds up to the difference of the logits at x and at the baseline."""
    x = torch.randn(4, 5, dtype=torch.float64)
    baseline = torch.randn(shape, dtype=torch.float64)
    relevance = IntegratedGradients(baseline, steps=400)(model, x, 2)
    difference = model(x)[:, 2] - model(baseline.expand(4, 5))[:, 2]
    torch.testing.assert_close(relevance.sum(1), difference.detach(), rtol=1e-4, atol=1e-5)


def test_a_tensor_of_one_value_is_that_number(model):
    x = torch.randn(4, 5, dtype=torch.float64)
    expected = IntegratedGradients(0.5)(model, x)
    torch.testing.assert_close(IntegratedGradients(torch.full((5,), 0.5))(model, x), expected)


def test_a_baseline_that_does_not_fit_is_refused(model):
    with pytest.raises(ValueError, match=r"baseline of shape \(4,\) cannot be expanded to the input's, \(4, 5\)"):
        IntegratedGradients(torch.zeros(4))(model, torch.zeros(4, 5, dtype=torch.float64))
