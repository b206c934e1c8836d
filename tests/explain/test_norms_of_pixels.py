"""What a norm adds is a bias: relevance is that of the network whose norms are folded into the layers before."""

import copy

import pytest
import torch
from readers import assert_equal
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from two_layers import METHODS


def network(bias):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 5, 3, bias=bias), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 3 * 3, 3),
    ).double().eval()  # fmt: skip
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight)  # of either sign
            nn.init.normal_(layer.bias)
    return model


def folded(model):
    model = copy.deepcopy(model)
    for number in (0, 3):
        model[number] = fuse_conv_bn_eval(model[number], model[number + 1])
        model[number + 1] = nn.Identity()
    return model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_batch_norm_is_part_of_the_layer_before(name, bias):
    model, method = network(bias), METHODS[name]()
    x = torch.rand(4, 2, 7, 7, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(folded(model)(x), model(x))
    for examples in (x, x[:1]):  # a single one looks as a bias does
        target = model(examples).argmax(1)
        assert_equal(method(model, examples, target), method(folded(model), examples, target))


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Sigmoid(), nn.Softplus()])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_batch_norm_behind_an_activation_is_a_linear_layer(name, activation):
    """Also behind a sigmoid, which may be a gate elsewhere."""
    torch.manual_seed(0)
    norm, layer = nn.BatchNorm1d(6).double(), nn.Linear(6, 6).double()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    layer.weight.data, layer.bias.data = scale.diag(), norm.bias - norm.running_mean * scale
    first, last = nn.Linear(4, 6), nn.Linear(6, 3)
    model, expected = (
        nn.Sequential(first, activation, between, last).double().eval() for between in (norm, layer)
    )
    x, method = torch.rand(5, 4, dtype=torch.float64) * 2 - 1, METHODS[name]()
    last.bias.data += 1  # something speaks for it
    assert_equal(method(model, x, 1), method(expected, x, 1))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_batch_norm_of_gates_scales_signals(name):
    class Gated(nn.Module):
        def __init__(self, hold):
            super().__init__()
            torch.manual_seed(0)
            self.hold, self.norm = hold, nn.BatchNorm1d(6)
            self.gates, self.signals, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)
            self.out.bias.data += 2  # something speaks for it
            self.double().eval()

        def forward(self, x):
            factor = self.norm(self.gates(x).sigmoid())
            return self.out((factor.detach() if self.hold else factor) * self.signals(x).tanh())

    x, method = torch.rand(5, 4, dtype=torch.float64) * 2 - 1, METHODS[name]()
    assert_equal(method(Gated(hold=False), x, 1), method(Gated(hold=True), x, 1))
