"""Against zennit on copies unrolled in time, and captum on feed-forward nets: other people's code."""

import copy

import captum.attr
import pytest
import torch
import zennit.composites
import zennit.core
import zennit.rules
from torch import nn
from zennit.attribution import Gradient

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    GradientTimesInput,
    GuidedBackprop,
    IntegratedGradients,
    Sensitivity,
    WSquare,
    ZBox,
    ZPlus,
)

STABILISER = 1e-14
HIDDEN = 48  # wide: zennit's alpha-beta does not conserve at units whose inputs all speak for one side


class Cells(nn.Module):
    """h_t = ReLU(cell_t [x_t, h_{t-1}]) with one module a time step, or the same one each time."""

    def __init__(self, front, cells, out):
        super().__init__()
        self.fronts, self.cells, self.out = nn.ModuleList(front), nn.ModuleList(cells), out
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(2 * len(cells)))

    def forward(self, x):
        h = x.new_zeros(len(x), HIDDEN)
        for t, step in enumerate(x.unbind(1)):
            seen = self.relus[2 * t](self.fronts[t](step))
            h = self.relus[2 * t + 1](self.cells[t](torch.cat([seen, h], dim=1)))
        return self.out(h)


@pytest.fixture
def nets():
    front, cell, out = nn.Linear(20, 40), nn.Linear(40 + HIDDEN, HIDDEN), nn.Linear(HIDDEN, 5)
    for layer in (front, cell, out):
        layer.bias.data = -layer.bias.data.abs() * 0.1
    shared = Cells([front] * 4, [cell] * 4, out).double()
    unrolled = Cells([copy.deepcopy(front) for _ in range(4)], [copy.deepcopy(cell) for _ in range(4)], out)
    return shared, unrolled.double(), torch.rand(8, 4, 20, dtype=torch.float64) * 2 - 1


def zennit_rule(name):
    options = {"stabilizer": STABILISER}
    return {
        "ZPlus": lambda: zennit.rules.ZPlus(**options),
        "AlphaBeta": lambda: zennit.rules.AlphaBeta(1.5, 0.5, zero_params="bias", **options),
        "Epsilon": lambda: zennit.rules.Epsilon(1e-3),
        "Gamma": lambda: zennit.rules.Gamma(0.25, **options),
        "ZBox": lambda: zennit.rules.ZBox(-1.0, 1.0, **options),
        "WSquare": lambda: zennit.rules.WSquare(zero_params="bias", **options),
        "Flat": lambda: zennit.rules.Flat(zero_params="bias", **options),
    }[name]()


def zennit_relevance(model, x, target, inner, first):
    """zennit's relevance; `first` is for the layers that read pixels."""

    def choose(ctx, name, module):
        if isinstance(module, nn.ReLU):
            return zennit.rules.Pass()
        if isinstance(module, nn.Linear):
            return zennit_rule(first if name.startswith("fronts") else inner)
        return None

    composite = zennit.core.Composite(module_map=choose)
    weights = model(x).detach().gather(1, target[:, None]).clamp(min=0)
    start = torch.zeros(len(x), 5, dtype=x.dtype).scatter(1, target[:, None], weights)
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(x, start)[1]


RULES = {
    "ZPlus": ZPlus(),
    "AlphaBeta": AlphaBeta(1.5, 0.5),
    "Epsilon": Epsilon(1e-3),
    "Gamma": Gamma(0.25),
    "ZBox": ZBox(-1, 1),
    "WSquare": WSquare(),
    "Flat": Flat(),
}


@pytest.mark.parametrize("first", RULES)
@pytest.mark.parametrize("inner", ["ZPlus", "AlphaBeta", "Epsilon", "Gamma"])
def test_a_recurrent_net_equals_zennit_on_its_unrolled_copy(inner, first, nets):
    shared, unrolled, x = nets
    target = torch.arange(8) % 5
    ours = LRP(Composite(RULES[inner], by_name={"fronts.*": RULES[first]}), start="positive")
    relevance = ours(shared, x, target)
    expected = zennit_relevance(unrolled, x, target, inner, first)
    assert expected.abs().max() > 0
    torch.testing.assert_close(relevance, expected, rtol=1e-6, atol=1e-9)
    # What reads pixels is found without being named, too.
    found = LRP(Composite(RULES[inner], pixels=RULES[first]), start="positive")
    torch.testing.assert_close(found(shared, x, target), relevance)


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.front = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.Sequential(nn.Linear(96, 12, bias=False), nn.ReLU(), nn.Linear(12, 4, bias=False))

    def forward(self, x):
        return self.head(self.front(x).flatten(1))  # captum's LRP refuses nn.Flatten


@pytest.fixture
def feed_forward():
    model = FeedForward().double()
    return model, torch.rand(5, 1, 8, 8, dtype=torch.float64), torch.arange(5) % 4


def test_gradients_equal_captum(feed_forward):
    model, x, target = feed_forward
    saliency = captum.attr.Saliency(model).attribute(x.clone().requires_grad_(), target, abs=False)
    torch.testing.assert_close(Sensitivity()(model, x, target), saliency**2)
    product = captum.attr.InputXGradient(model).attribute(x.clone().requires_grad_(), target)
    torch.testing.assert_close(GradientTimesInput()(model, x, target), product)
    guided = captum.attr.GuidedBackprop(model).attribute(x.clone().requires_grad_(), target)
    torch.testing.assert_close(GuidedBackprop()(model, x, target), guided**2)
    integrated = captum.attr.IntegratedGradients(model).attribute(
        x.clone(), torch.full_like(x, -1), target, n_steps=64, method="riemann_middle"
    )
    torch.testing.assert_close(IntegratedGradients(-1.0, 64)(model, x, target), integrated)


@pytest.mark.parametrize("name", ["epsilon", "alpha1beta0"])
def test_lrp_equals_captum(name, feed_forward):
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule

    model, x, target = feed_forward
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.AvgPool2d):
            layer.rule = EpsilonRule(1e-3) if name == "epsilon" else Alpha1_Beta0_Rule()
    expected = captum.attr.LRP(model).attribute(x.clone().requires_grad_(), target)
    positive = model(x).gather(1, target[:, None]).squeeze(1) > 0
    assert positive.any()
    ours = LRP(Epsilon(1e-3) if name == "epsilon" else ZPlus())(model, x, target)
    tolerance = {"rtol": 1e-5, "atol": 1e-8} if name == "epsilon" else {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(ours[positive], expected[positive].detach(), **tolerance)
