"""Extreme networks and inputs: relevance is finite, never NaN."""

import pytest
import torch
from torch import nn

from rnnx_lightning.architectures import RLSTM, ConvDeep, Shallow
from rnnx_lightning.explain import LRP, DeepTaylor, Epsilon, Gamma, GuidedBackprop, Sensitivity

METHODS = [
    Sensitivity(),
    GuidedBackprop(),
    DeepTaylor(),
    LRP(),
    LRP(alpha=1.5, beta=0.5),
    LRP(Epsilon(), start="positive"),
    LRP(Gamma(), start="positive"),
]
NETWORKS = [Shallow, ConvDeep, RLSTM]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("make", NETWORKS)
def test_a_dead_network_has_no_relevance(make, method):
    model = make()
    with torch.no_grad():
        list(model.output.parameters())[-1].copy_(-torch.ones_like(list(model.output.parameters())[-1]))
    x = torch.rand(2, 1, 28, 84)
    relevance = method(model, x, 0)
    assert relevance.isfinite().all()
    if isinstance(method, LRP):
        assert (model.eval()(x) <= 0).all()
        assert (relevance == 0).all()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("make", NETWORKS)
def test_constant_input(make, value, method):
    assert method(make(), torch.full((2, 1, 28, 84), value)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS[2:], ids=lambda m: type(m).__name__)
def test_saturated_gates(method, dtype):
    model = RLSTM()
    with torch.no_grad():
        model.cell.gates_input.bias.copy_(torch.randn(216).sign() * 1e4)
    assert method(model.to(dtype), torch.rand(2, 1, 28, 84, dtype=dtype)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS[2:], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_weights(scale, method, dtype):
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)).to(dtype)
    with torch.no_grad():
        model[0].weight.mul_(scale)
    relevance = method(model, torch.rand(4, 6, dtype=dtype))
    assert relevance.isfinite().all()


@pytest.mark.parametrize("method", METHODS[2:], ids=lambda m: type(m).__name__)
def test_anomaly_detection_finds_nothing(method):
    with torch.autograd.set_detect_anomaly(True):
        method(RLSTM(), torch.rand(2, 1, 28, 84))
