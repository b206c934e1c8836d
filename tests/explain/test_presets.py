"""zennit's composites, ours against zennit's own."""

import pytest
import torch
import zennit.composites
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from zennit.attribution import Gradient

from rnnx_lightning.explain import (
    LRP,
    Composite,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlusFlat,
    GradientTimesInput,
)

STABILISER = 1e-14
EPSILON = 1e-3


def network(first="conv", bias=True):
    torch.manual_seed(0)
    start = (
        [nn.Conv2d(3, 12, 3, padding=1, bias=bias), nn.BatchNorm2d(12), nn.ReLU()]
        if first == "conv"
        else [
            nn.Flatten(),
            nn.Linear(3 * 16 * 12, 12 * 16 * 12, bias=bias),
            nn.ReLU(),
            nn.Unflatten(1, (12, 16, 12)),
        ]
    )
    model = nn.Sequential(
        *start,
        nn.AvgPool2d(2),
        nn.Conv2d(12, 16, 3, padding=1, bias=bias),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 20, 3, stride=2, bias=bias),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 16, bias=bias),
        nn.ReLU(),
        nn.Linear(16, 4, bias=bias),
    ).double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data *= 3
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            if not bias:  # folded into the convolution before, its mean is a bias, too
                module.running_mean.zero_()
                module.bias.data.zero_()
    return model.eval(), torch.rand(6, 3, 16, 12, dtype=torch.float64) * 2 - 1, torch.arange(6) % 4


def without_norms(model):
    """Folded into the convolutions before them, as zennit's canonizers do (these leave batch norm's epsilon)."""
    layers = []
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            layer = fuse_conv_bn_eval(layers.pop(), layer)
        layers.append(layer)
    return nn.Sequential(*layers)


def by_zennit(composite, model, x, target):
    with Gradient(model=model, composite=composite) as attributor:
        logits = model(x).detach()
        start = torch.zeros_like(logits).scatter(1, target[:, None], logits.gather(1, target[:, None]))
        return attributor(x, start)[1]


COMPOSITES = {
    "EpsilonPlusFlat": (EpsilonPlusFlat(EPSILON, STABILISER), {}),
    "EpsilonGammaBox": (
        EpsilonGammaBox(-1.0, 1.0, EPSILON, 0.3, STABILISER),
        {"low": -1.0, "high": 1.0, "gamma": 0.3},
    ),
    "EpsilonAlpha2Beta1Flat": (EpsilonAlpha2Beta1Flat(EPSILON, STABILISER), {}),
}


@pytest.mark.parametrize("first", ["conv", "linear"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_composites_equal_zennit(name, first):
    if name == "EpsilonGammaBox" and first == "linear":
        pytest.skip("zennit gives the box to the first convolution, even where it reads no pixels")
    # zennit's alpha-beta counts negative biases, ours does not.
    model, x, target = network(first, bias=name != "EpsilonAlpha2Beta1Flat")
    ours, options = COMPOSITES[name]
    assert isinstance(ours, Composite)
    relevance = LRP(ours)(model, x, target)
    theirs = getattr(zennit.composites, name)(epsilon=EPSILON, stabilizer=STABILISER, **options)
    expected = by_zennit(theirs, without_norms(model), x, target)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(relevance, expected, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(relevance, GradientTimesInput()(model, x, target), rtol=0.1)


def test_they_are_named_in_yaml():
    from jsonargparse import ArgumentParser

    from rnnx_lightning.explain import Attributor

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--method", type=Attributor)
    rules = {
        "class_path": "rnnx_lightning.explain.EpsilonGammaBox",
        "init_args": {"low": 0.0, "high": 1.0, "gamma": 0.5},
    }
    chosen = parser.parse_object({"method": {"class_path": "LRP", "init_args": {"rules": rules}}})
    made = parser.instantiate_classes(chosen).method.composite
    assert made == EpsilonGammaBox(0.0, 1.0, gamma=0.5)
