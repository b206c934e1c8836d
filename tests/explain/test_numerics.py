"""Extreme networks and inputs: relevance is finite, never NaN."""

import copy

import pytest
import torch
from torch import nn

from rnnx_lightning.architectures import RLSTM, ConvDeep, Shallow
from rnnx_lightning.explain import LRP, Composite, DeepTaylor, Epsilon, Gamma, GuidedBackprop, Sensitivity

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


def test_a_total_of_minus_epsilon():
    """Where a sum is followed by ReLU, it has no relevance; 0 / 0 would be NaN."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model[2].weight.fill_(1.0)
    x = torch.tensor([[0.01]])
    torch.testing.assert_close(LRP(Epsilon(0.01))(model, x), x / 4)  # half is absorbed twice


@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
def test_deep_norms_in_bfloat16(norm, epsilon):
    """A total is the very value that the network continues with: another rounding would be divided by it."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(24, 24), norm(24), nn.ReLU()) for _ in range(12)]
    model, x = nn.Sequential(*blocks, nn.Linear(24, 1)).train(), torch.randn(200, 24)
    for _ in range(20):
        model(x)  # statistics of the data
    model.eval()
    method = LRP(Epsilon(epsilon))
    expected = method(copy.deepcopy(model).double(), x.double())
    relevance = method(model.to(torch.bfloat16), x.to(torch.bfloat16)).double()
    assert relevance.isfinite().all()
    assert relevance.abs().max() < 10 * expected.abs().max()


def test_biases_spread_through_a_deep_network():
    """Units that ReLU switches off get relevance, too: it must be divided by the right sum."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(8)]
    model, x = nn.Sequential(*blocks, nn.Linear(16, 1)).double(), torch.randn(50, 16, dtype=torch.float64)
    explanation = LRP(Composite(Epsilon(1e-2), bias="spread")).explain(model, x)
    torch.testing.assert_close(explanation.relevance.sum(1), explanation.explained, rtol=1e-10, atol=1e-12)
    assert explanation.relevance.abs().max() < 100 * explanation.explained.abs().max()


class Masked(nn.Module):
    """h = (h + W x) * mask, many times: so deep that totals have exponents."""

    def __init__(self, mask):
        super().__init__()
        self.read, self.out = nn.Linear(3, len(mask)), nn.Linear(len(mask), 1)
        self.mask = mask

    def forward(self, x):
        h = self.read(x)
        for _ in range(12):
            h = (h + self.read(x)) * self.mask
        return self.out(h)


@pytest.mark.parametrize("method", METHODS[2:], ids=lambda m: type(m).__name__)
def test_a_deep_mask_of_either_sign_may_be_0(method):
    model, smaller = Masked(torch.tensor([1.0, -1.0, 0.5, 0.0])).double(), Masked(torch.tensor([1.0, -1.0, 0.5]))
    smaller.read.weight, smaller.read.bias = (nn.Parameter(p[:3].detach()) for p in model.read.parameters())
    smaller.out.weight, smaller.out.bias = nn.Parameter(model.out.weight[:, :3].detach()), model.out.bias
    x = torch.rand(5, 3, dtype=torch.float64)
    torch.testing.assert_close(method(model, x, 0), method(smaller, x, 0))


class Forgetful(nn.Module):
    """A memory that forgets by gates near the smallest number of float32."""

    def __init__(self):
        super().__init__()
        self.read, self.out = nn.Linear(3, 8), nn.Linear(4, 1, bias=False)

    def forward(self, x):
        c = x.new_zeros(len(x), 4)
        for t, part in enumerate(x.unbind(1)):
            forget, write = self.read(part).chunk(2, 1)
            c = torch.sigmoid(forget - 90 * (t % 3 == 0)) * c + torch.sigmoid(write) * torch.relu(write)
        return self.out(c).abs()


@pytest.mark.parametrize("method", METHODS[2:], ids=lambda m: type(m).__name__)
def test_gates_near_the_smallest_number(method):
    torch.manual_seed(0)
    model, x = Forgetful(), torch.randn(5, 30, 3)
    relevance = method(model, x, 0)
    assert relevance.isfinite().all()
    assert method(model.double(), x.double(), 0).sub(relevance).abs().max() < 1e-5


class Closed(nn.Module):
    """Units that are all but switched off, and get a share of a bias."""

    def __init__(self, product, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.read, self.out = nn.Linear(3, 8, bias=False, dtype=dtype), nn.Linear(4, 2, dtype=dtype)
        self.product = product
        scale = torch.full((4,), torch.finfo(dtype).smallest_normal / 100, dtype=dtype)
        self.register_buffer("scale", torch.where(torch.arange(4) < 2, scale, 1.0))

    def forward(self, x):
        h, other = self.read(x).chunk(2, 1)
        return self.out(other * (h * self.scale) if self.product else h * self.scale + other * self.scale)


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rule", [Epsilon(0), Gamma(0.25)], ids=lambda r: type(r).__name__)
def test_units_that_are_all_but_switched_off(rule, dtype, product):
    model, method = Closed(product, dtype), LRP(Composite(rule, bias="spread", products="half"))
    explanation = method.explain(model, torch.rand(3, 3, dtype=dtype) + 0.5, 0)
    assert explanation.relevance.isfinite().all()
    if dtype is not torch.bfloat16:
        torch.testing.assert_close(explanation.relevance.sum(1), explanation.explained)


class Outweighed(nn.Module):
    """Layers whose biases are a million times as large as what they add up."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.out = nn.Conv1d(2, 4, 3, bias=False), nn.BatchNorm1d(4), nn.Linear(16, 3)
        self.one, self.two = nn.Linear(6, 16), nn.Linear(6, 16)
        with torch.no_grad():
            for layer in (self.conv, self.one, self.two):
                layer.weight.mul_(1e-6)
            self.norm.bias.fill_(1.0)
        self.eval()

    def forward(self, x):
        hidden = self.norm(self.conv(x)).tanh().flatten(1)
        return self.out(hidden + (self.one(x[:, 0]) + self.two(x[:, 1])).tanh())


@pytest.mark.parametrize("rule", [Epsilon(0), Gamma(0.25)], ids=lambda r: type(r).__name__)
def test_ignored_biases_cost_no_digits(rule):
    method = LRP(Composite(rule, bias="ignore"), start="logit")
    model, x = Outweighed(), torch.randn(3, 2, 6)
    layers = ["conv", "one"]
    exact = method.explain(copy.deepcopy(model).double(), x.double(), 1, layers=layers)
    rounded = method.explain(model, x, 1, layers=layers)
    pairs = [(rounded.relevance, exact.relevance)] + [
        (one, other)
        for name in layers
        for one, other in zip(rounded.layers[name], exact.layers[name], strict=True)
    ]
    for one, other in pairs:
        assert (one - other).abs().max() < 1e-3 * other.abs().max()
