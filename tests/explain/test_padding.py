"""Padding is no pixel and no unit, in whatever way it is written: one function, one heatmap."""

import pytest
import torch
import torch.nn.functional as F
from readers import assert_equal
from torch import nn
from two_layers import METHODS, Last

from rnnx_lightning.explain import UnexplainableError


class Network(nn.Module):
    """Two convolutions whose padding is done by `first` and `second`, and a linear layer."""

    def __init__(self, first, second, bias, stride=1, padding=0):
        super().__init__()
        torch.manual_seed(3)
        self.one = nn.Conv2d(2, 3, 3, stride, padding, bias=bias)
        self.two = nn.Conv2d(3, 2, 3, padding=padding, bias=bias)
        self.out = nn.LazyLinear(3, bias=bias)
        self.first, self.second = first, second
        with torch.no_grad():
            self(torch.zeros(1, 2, 6, 5))
        torch.manual_seed(4)
        self.out.reset_parameters()
        self.double()

    def forward(self, x):
        hidden = torch.relu(self.one(self.first(x)))
        return self.out(torch.relu(self.two(self.second(hidden))).flatten(1))


def joined(x):
    side = x.new_zeros(*x.shape[:3], 1)
    x = torch.cat([side, x, side], 3)
    above = x.new_zeros(*x.shape[:2], 1, x.shape[3])
    return torch.cat([above, x, above], 2)


def assigned(x):
    result = x.new_zeros(*x.shape[:2], x.shape[2] + 2, x.shape[3] + 2)
    result[:, :, 1:-1, 1:-1] = x
    return result


PADDINGS = {
    "F.pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "F.pad with a value": lambda x: F.pad(x, (1, 1, 1, 1), "constant", 0.0),
    "nn.ZeroPad2d": nn.ZeroPad2d(1),
    "nn.ConstantPad2d": nn.ConstantPad2d(1, 0.0),
    "side by side": lambda x: F.pad(F.pad(x, (1, 1)), (0, 0, 1, 1)),
    "more, then less": lambda x: F.pad(x, (2, 1, 1, 3))[:, :, :-2, 1:],
    "joined": joined,
    "assigned": assigned,
}


def data():
    torch.manual_seed(5)
    return torch.rand(3, 2, 6, 5, dtype=torch.float64) * 2 - 1


def identity(x):
    return x


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_padding_before_is_padding_of_the_convolution(name, padding, bias):
    own = Network(identity, identity, bias, padding=1)
    before = Network(PADDINGS[padding], PADDINGS[padding], bias)
    x, method = data(), METHODS[name]()
    torch.testing.assert_close(before(x), own(x))
    target = own(x).argmax(1)
    expected = method(own, x, target)
    try:
        relevance = method(before, x, target)
    except UnexplainableError as refusal:
        if padding not in ("joined", "assigned"):
            raise
        pytest.skip(f"refused: {refusal}")
    assert_equal(relevance, expected)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_padding_by_nothing_does_nothing(name):
    x, method = data(), METHODS[name]()
    padded = Network(lambda x: F.pad(x, (0, 0)), lambda x: F.pad(x, (0, 0, 0, 0)), True)
    plain = Network(identity, identity, True)
    target = plain(x).argmax(1)
    assert_equal(method(padded, x, target), method(plain, x, target), 1e-12)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_strided_convolutions(name):
    x, method = data(), METHODS[name]()
    own = Network(identity, identity, True, stride=2, padding=1)
    before = Network(PADDINGS["F.pad"], PADDINGS["F.pad"], True, stride=2)
    target = own(x).argmax(1)
    assert_equal(method(before, x, target), method(own, x, target))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_causal_convolutions(name):
    """Padding only at the front, or at both sides and cut off at the end."""
    torch.manual_seed(6)
    conv, out = nn.Conv1d(2, 3, 3).double(), nn.Linear(18, 3).double()
    cut = lambda x: F.conv1d(x, conv.weight, conv.bias, padding=2)[:, :, :-2]  # noqa: E731
    front = lambda x: conv(F.pad(x, (2, 0)))  # noqa: E731
    x, method = torch.rand(3, 2, 6, dtype=torch.float64) * 2 - 1, METHODS[name]()
    one, other = (Last(nn.Identity(), lambda x, f=f: out(f(x).relu().flatten(1))) for f in (cut, front))
    assert_equal(method(other, x), method(one, x))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_average_pooling(name):
    torch.manual_seed(7)
    out = nn.Linear(24, 3).double()
    own = Last(nn.AvgPool2d(2, padding=1), lambda h: out(h.flatten(1)))
    before = Last(nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(2)), lambda h: out(h.flatten(1)))
    x, method = torch.rand(3, 2, 5, 6, dtype=torch.float64) * 2 - 1, METHODS[name]()
    torch.testing.assert_close(before(x), own(x))
    assert_equal(method(before, x), method(own, x))


@pytest.mark.parametrize("name", ["z^B", "w^2", "deep Taylor"])
def test_the_border_takes_nothing(name):
    """Without a bias pixels get all that is sent down."""
    model = Network(PADDINGS["F.pad"], PADDINGS["F.pad"], False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    x = data().abs()
    relevance = METHODS[name]()(model, x, 1)
    torch.testing.assert_close(relevance.flatten(1).sum(1), model(x)[:, 1].detach(), rtol=1e-9, atol=0)
