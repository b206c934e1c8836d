"""Guided backprop finds ReLU under its other names, or refuses; it is never the plain gradient in silence."""

import pytest
import torch
import torch.nn.functional as F
from readers import assert_equal
from torch import nn
from two_layers import data

from rnnx_lightning.explain import GuidedBackprop, NoReLUWarning, Sensitivity, UnexplainableError

RELUS = {
    "nn.Threshold": nn.Threshold(0.0, 0.0),
    "F.threshold": lambda z: F.threshold(z, 0.0, 0.0),
    "F.threshold_": lambda z: F.threshold_(z.clone(), 0.0, 0.0),
    "maximum": lambda z: torch.maximum(z, torch.zeros_like(z)),
    "maximum, the other way round": lambda z: torch.maximum(torch.zeros((), dtype=z.dtype), z),
    "max of two": lambda z: torch.max(z, torch.zeros_like(z)),
    "fmax": lambda z: torch.fmax(z, torch.zeros_like(z)),
    "where": lambda z: torch.where(z > 0, z, 0.0),
    "where >=": lambda z: torch.where(z >= 0, z, torch.zeros_like(z)),
    "where <": lambda z: torch.where(z < 0, torch.zeros_like(z), z),
    "times a mask": lambda z: z * (z > 0),
    "a mask times it": lambda z: (z > 0).to(z.dtype) * z,
    "masked_fill": lambda z: z.masked_fill(z < 0, 0.0),
    "masked_fill_": lambda z: z.clone().masked_fill_(z < 0, 0.0),
    "clamp": lambda z: z.clamp(min=0),
    "clamp by a tensor": lambda z: z.clamp(min=torch.zeros_like(z)),
    "clamp_min": lambda z: torch.clamp_min(z, 0.0),
    "with an absolute value": lambda z: (z + z.abs()) / 2,
    "with half an absolute value": lambda z: 0.5 * z + 0.5 * z.abs(),
    "with an absolute value on the left": lambda z: (z.abs() + z).mul(0.5),
    "with a negated absolute value": lambda z: -((-z) - z.abs()) / 2,
    "less a negated absolute value": lambda z: (z - -z.abs()) / 2,
    "with the absolute value of the negative": lambda z: -(-z - abs(-z)) / 2,
    "with a sign": lambda z: z * (1 + z.sign()) / 2,
    "with half a sign": lambda z: z * (0.5 * torch.sign(z) + 0.5),
    "less a number": lambda z: z * (torch.sgn(z) - -1) / 2,
    "a number less a sign": lambda z: z * (1 - -z.sign()) / 2,
    "with a negative sign": lambda z: z * (-1 - z.sign()) / -2,
    "with a detached sign": lambda z: z * ((z.detach().sign() + 1) / 2),
    "with a step": lambda z: z * torch.heaviside(z, torch.zeros_like(z)),
    "with a mask of twos": lambda z: z * (2 * (z > 0)) * 0.5,
    "where it is negative": lambda z: -(-z * (-z < 0)),
    "minimum": lambda z: -torch.minimum(-z, torch.zeros_like(z)),
    "fmin": lambda z: -torch.fmin(torch.zeros_like(z), -z),
    "min of two": lambda z: -torch.min(-z, torch.zeros_like(z)),
    "clamp of the negative": lambda z: -(-z).clamp(max=0),
    "clamp of the negative, by a tensor": lambda z: -(-z).clamp(max=torch.zeros_like(z)),
    "clamp_max": lambda z: -torch.clamp_max(-z, 0.0),
    "hardtanh of the negative": lambda z: -F.hardtanh(-z, -1e9, 0.0),
    "leaky, of slope 0": nn.LeakyReLU(0.0),
    "hardtanh, very wide": nn.Hardtanh(0.0, 1e9),
    "ReLU6 of small values": nn.ReLU6(),
    "beside a mask by vmap": lambda z: z.relu() * torch.vmap(lambda k: k >= torch.zeros(()))(torch.arange(9)),
}


class Network(nn.Module):
    def __init__(self, act):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.out = nn.Linear(5, 9), nn.Linear(9, 9), nn.Linear(9, 3)
        self.act = act
        self.double()

    def forward(self, x):
        return self.out(self.act(self.second(self.act(self.first(x)))))


@pytest.mark.parametrize("relu", RELUS)
def test_relu_under_another_name(relu):
    (x, target), plain, model = data(), Network(torch.relu), Network(RELUS[relu])
    torch.testing.assert_close(model(x), plain(x))
    expected = GuidedBackprop()(plain, x, target)
    assert (expected - Sensitivity()(plain, x, target)).abs().max() > 0.01 * expected.max()
    try:
        relevance = GuidedBackprop()(model, x, target)
    except UnexplainableError as refusal:
        pytest.skip(f"refused: {refusal}")
    assert_equal(relevance, expected)


OVERWRITTEN = {
    "a mask": lambda z: z * (z > 0).index_fill_(1, torch.tensor([0, 3]), False),
    "a mask, combined": lambda z: z * (z > 0).logical_and_(torch.arange(z.shape[1]) > 2),
    "a mask of numbers": lambda z: z * (z > 0).to(z.dtype).mul_(0.5),
    "a mask, chosen by": lambda z: torch.where((z > 0).fill_(True), z, 0.0),
    "a mask, filled by": lambda z: z.masked_fill((z < 0).index_fill_(1, torch.tensor(0), False), 0.0),
    "a sign": lambda z: z * (1 + z.sign().index_fill_(1, torch.tensor(0), 1.0)),
    "an absolute value": lambda z: z + z.abs().index_fill_(1, torch.tensor(0), 0.0),
}


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_a_mask_that_is_overwritten_makes_no_relu(name):
    """The network keeps its function, and so its gradient."""
    (x, target), model = data(), Network(OVERWRITTEN[name])
    with pytest.warns(NoReLUWarning):
        relevance = GuidedBackprop()(model, x, target)
    assert_equal(relevance, Sensitivity()(model, x, target))


@pytest.mark.parametrize(
    "activation",
    [
        lambda z: z * z.sign(),
        lambda z: z * (0.1 + 0.9 * (z > 0)),
        lambda z: 2 * z + z.abs(),
        lambda z: z - 3 * z.abs(),
        lambda z: z * (1 + 2 * z.sign()),
    ],
)
def test_functions_with_a_slope_on_both_sides_are_no_relu(activation):
    (x, target), model = data(), Network(activation)
    with pytest.warns(NoReLUWarning):
        relevance = GuidedBackprop()(model, x, target)
    assert_equal(relevance, Sensitivity()(model, x, target))
