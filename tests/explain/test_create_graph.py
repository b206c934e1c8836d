"""Relevance that has a graph: its derivatives by the parameters, against finite differences."""

import pytest
import torch
from torch import nn

from rnnx_lightning.architectures import RLSTM
from rnnx_lightning.explain import (
    GradientTimesInput,
    GuidedBackprop,
    IntegratedGradients,
    Sensitivity,
    SmoothGrad,
)

METHODS = {
    "Sensitivity": Sensitivity(create_graph=True),
    "GradientTimesInput": GradientTimesInput(create_graph=True),
    "GuidedBackprop": GuidedBackprop(create_graph=True),
    "IntegratedGradients": IntegratedGradients(steps=3, create_graph=True),
    "SmoothGrad": SmoothGrad(Sensitivity(create_graph=True), samples=2),
    "Sensitivity, gates constant": Sensitivity(gates="constant", create_graph=True),
    "GuidedBackprop, gates constant": GuidedBackprop(gates="constant", create_graph=True),
}


def relu_net():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(28 * 28, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
    )


def gated_net():
    return RLSTM(features=4, units=3, classes=3).eval()


def attending_net():
    """Its attention is one fused operation, which torch differentiates once."""
    layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True, norm_first=True)
    return nn.Sequential(nn.Flatten(1, 2), nn.Linear(28, 8), layer, nn.Flatten(), nn.Linear(224, 3)).eval()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [relu_net, gated_net, attending_net])
def test_relevance_is_differentiable_by_the_parameters(make, method):
    torch.manual_seed(3)
    model = make().double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    weights = torch.randn(x.shape, dtype=torch.float64)

    def score():
        return (METHODS[method](model, x, 1) * weights).sum()

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(score(), parameters, allow_unused=True)
    assert sum(g is not None and bool(g.any()) for g in gradients) >= len(parameters) // 2
    step = 1e-6
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter += step * direction
            above = score().item()
            parameter -= 2 * step * direction
            below = score().item()
            parameter += step * direction
        analytic = 0.0 if gradient is None else float((gradient * direction).sum())
        assert (above - below) / (2 * step) == pytest.approx(analytic, rel=1e-4, abs=1e-6)


def test_without_it_relevance_has_no_graph():
    for method in (Sensitivity(), GuidedBackprop(), IntegratedGradients(steps=2), SmoothGrad(samples=2)):
        assert not method(relu_net(), torch.randn(2, 1, 28, 28), 1).requires_grad
