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
