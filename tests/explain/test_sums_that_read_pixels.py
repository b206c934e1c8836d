"""Sums of layers that read pixels, scaled: as if the scale were in the weights. Averages: as if written as a matrix."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

FACTORS = torch.tensor([0.5, 2.0, -1.5, 1.0, 0.7], dtype=torch.float64)
POSITIVE = FACTORS.abs()
WIDTH = 5


class Network(nn.Module):
    """Three layers, two of which read pixels; `way` sums them, in one of two spellings."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way, self.hidden = way, nn.Linear(4, 3)
        self.A, self.B, self.U, self.out = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(3, 5), nn.LazyLinear(2)
        self.double()
        with torch.no_grad():
            self.B.weight[:, 2:] = 0
            self(torch.zeros(1, 4, dtype=torch.float64))

    def forward(self, x):
        return self.out(self.way(self, x, self.hidden(x).relu()).relu())


def into(layer, x, factor):
    """The layer with a factor in its weights."""
    factor = torch.as_tensor(factor, dtype=torch.float64).expand(WIDTH)
    return F.linear(x, layer.weight * factor[:, None], layer.bias * factor)


def leaky(m, x, h):
    state = x.new_zeros(len(x), WIDTH)
    for _ in range(3):
        state = -0.5 * state + m.A(x) + m.U(h)
    return state


def together(m, x, h):
    state = x.new_zeros(len(x), WIDTH)
    for t in range(3):
        state = state + into(m.A, x, (-0.5) ** t) + into(m.U, h, (-0.5) ** t)
    return state


def joined(m):
    return torch.cat([m.A.weight, m.U.weight], 1), m.A.bias + m.U.bias


def one_layer(m, x, h):
    weight, bias = joined(m)
    return FACTORS * F.linear(torch.cat([x, h], 1), weight, bias)


def one_scaled(m, x, h):
    weight, bias = joined(m)
    return F.linear(torch.cat([x, h], 1), FACTORS[:, None] * weight, FACTORS * bias)


def beside(m, x, average):
    """Some of a layer's units plus an average of pixels, which has fewer inputs."""
    return m.A(x)[:, : average.shape[1]] + average


def moved(one, two):
    """Two values in one tensor that is moved, so that neither is read back as it was, added."""
    both = torch.stack([one, two]).flip(2)
    return (both[0] + both[1]).flip(1)


def by(function, **how):
    """A function of (B, 1, 4), and its matrix."""
    matrix = function(torch.eye(4, dtype=torch.float64)[:, None], **how)[:, 0]
    return (
        lambda m, x, h: beside(m, x, function(x[:, None], **how)[:, 0]),
        lambda m, x, h: beside(m, x, x @ matrix),
    )


def squares(function, **how):
    """The same for pixels as a picture (B, 1, 2, 2)."""
    unit = torch.eye(4, dtype=torch.float64).view(4, 1, 2, 2)
    matrix = function(unit, **how).flatten(1)[:, :5]
    return (
        lambda m, x, h: beside(m, x, function(x.view(-1, 1, 2, 2), **how).flatten(1)[:, :5]),
        lambda m, x, h: beside(m, x, x @ matrix),
    )


PAIRS = {
    "a factor": (lambda m, x, h: m.A(x) * FACTORS + m.B(x), lambda m, x, h: into(m.A, x, FACTORS) + m.B(x)),
    "a number": (lambda m, x, h: m.A(x) * 0.3 + m.B(x), lambda m, x, h: into(m.A, x, 0.3) + m.B(x)),
    "a difference": (lambda m, x, h: m.A(x) - m.B(x), lambda m, x, h: m.A(x) + into(m.B, x, -1.0)),
    "pixels off units": (lambda m, x, h: m.U(h) - m.A(x), lambda m, x, h: m.U(h) + into(m.A, x, -1.0)),
    "both, scaled": (
        lambda m, x, h: (m.A(x) + m.U(h)) * FACTORS,
        lambda m, x, h: into(m.A, x, FACTORS) + into(m.U, h, FACTORS),
    ),
    "both, scaled, beside pixels": (
        lambda m, x, h: (m.A(x) + m.U(h)) * POSITIVE + m.B(x),
        lambda m, x, h: into(m.A, x, POSITIVE) + into(m.U, h, POSITIVE) + m.B(x),
    ),
    "both, gated": (
        lambda m, x, h: m.B(x).sigmoid() * (m.A(x) + m.U(h)) + m.B(x),
        lambda m, x, h: m.B(x).sigmoid() * m.A(x) + m.B(x).sigmoid() * m.U(h) + m.B(x),
    ),
    "both, off pixels": (
        lambda m, x, h: m.B(x) - (m.A(x) + m.U(h)),
        lambda m, x, h: m.B(x) + into(m.A, x, -1.0) + into(m.U, h, -1.0),
    ),
    "both, moved and off pixels": (
        lambda m, x, h: m.B(x) - (m.A(x) + m.U(h)).flip(1)[:, None].flip(2)[:, 0],
        lambda m, x, h: m.B(x) + into(m.A, x, -1.0) + into(m.U, h, -1.0),
    ),
    "both, joined": (lambda m, x, h: moved(m.A(x), m.U(h)), lambda m, x, h: m.A(x) + m.U(h)),
    "units, joined": (lambda m, x, h: moved(m.A(x), m.B(x).tanh()), lambda m, x, h: m.A(x) + m.B(x).tanh()),
    "one layer, scaled": (one_layer, one_scaled),
    "a state with a negative decay": (leaky, together),
    "mean": (
        lambda m, x, h: m.A(x) + x.mean(1, keepdim=True),
        lambda m, x, h: m.A(x) + x @ torch.full((4, 1), 0.25).double(),
    ),
    "moving average": by(F.avg_pool1d, kernel_size=3, stride=1, padding=1),
    "moving average inside": by(F.avg_pool1d, kernel_size=3, stride=1, padding=1, count_include_pad=False),
    "adaptive average": by(F.adaptive_avg_pool1d, output_size=3),
    "interpolation": by(F.interpolate, size=5, mode="linear"),
    "interpolation of a picture": squares(F.interpolate, scale_factor=2.0, mode="bilinear"),
    "adaptive average of a picture": squares(F.adaptive_avg_pool2d, output_size=(1, 2)),
    "average of a picture": squares(F.avg_pool2d, kernel_size=2, stride=1, padding=1, divisor_override=3),
}
RULES = {"z+": ZPlus(), "epsilon": Epsilon(0), "alpha-beta": AlphaBeta(1.5, 0.5), "gamma": Gamma(0.25)}
PIXELS = {"flat": Flat(), "w2": WSquare(), "zB": ZBox(-4, 4), "as others": None}


@pytest.mark.parametrize("bias", ["share", "spread"])
@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_scale_of_a_sum_is_one_of_its_weights(pair, rule, pixels, bias):
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    composite = Composite(RULES[rule], pixels=PIXELS[pixels], bias=bias)
    ways = [Network(way) for way in PAIRS[pair]]
    torch.testing.assert_close(ways[0](x), ways[1](x))
    one, two = (LRP(composite, start="logit")(way, x, 0) for way in ways)
    torch.testing.assert_close(one, two)
    with_graph = LRP(composite, start="logit", create_graph=True)(ways[0], x, 0)
    torch.testing.assert_close(with_graph.detach(), one)


class Branches(nn.Module):
    """Two convolutions of a picture, each with its BatchNorm, added."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(nn.Conv2d(1, 4, size, padding=size // 2, bias=False) for size in (3, 1))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.out = nn.Linear(4, 2)
        for norm in self.norms:
            for value in (norm.weight.data, norm.running_mean, norm.running_var):
                value.uniform_(0.2, 2)
            norm.bias.data.normal_()
        self.double().eval()

    def forward(self, x):
        parts = [norm(conv(x)) for conv, norm in zip(self.convs, self.norms, strict=True)]
        return self.out(sum(parts).relu().mean((2, 3)))


class Folded(Branches):
    """The same with each BatchNorm in its convolution."""

    def forward(self, x):
        parts = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight, bias = conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
            parts.append(F.conv2d(x, weight, bias, padding=conv.padding))
        return self.out(sum(parts).relu().mean((2, 3)))


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("rule", RULES)
def test_branches_with_norms(rule, pixels):
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    method = LRP(Composite(RULES[rule], pixels=PIXELS[pixels]), start="logit")
    torch.testing.assert_close(method(Branches(), x, 0), method(Folded(), x, 0))
