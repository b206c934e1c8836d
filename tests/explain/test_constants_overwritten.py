"""What an operation has read is what it counts with, also where the network overwrites it later."""

import pytest
import torch
from readers import assert_equal
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, ZPlus

STEPS = 6


def steps(read, change, start):
    """`read` of each step and a constant, which `change` overwrites between the steps."""

    def function(x, kept):
        constant, out = start(), []
        for t in range(STEPS):
            out.append(read(x[:, t], constant.clone() if kept else constant))
            change(constant, t)
        return torch.stack(out, 1)

    return function


def by_signal(read, start):
    """`read` of the input and a constant, which is overwritten by something that depends on the input."""

    def function(x, kept):
        constant = start()
        y = read(x, constant.clone() if kept else constant)
        constant += x[0, 0]
        return y

    return function


def decayed(constant, _):
    return constant.mul_(-0.9)


def moving_mean(x, kept):
    """Sums and slices of tensors that start as zeros."""
    out, total = torch.zeros_like(x), torch.zeros(1, 4)
    total = total + x.sum(1) if kept else total.add_(x.sum(1))
    for t in range(STEPS):
        out[:, t] = x[:, t] - total / STEPS
    return out


def cumulative(x, kept):
    h, out = torch.zeros(1, 4), []
    for t in range(STEPS):
        h = h + x[:, t] if kept else h.add_(x[:, t])
        out.append(h * 1)
    return torch.stack(out, 1)


def line():
    return torch.linspace(-1, 1, 4)


FUNCTIONS = {
    "a factor": steps(lambda x, c: x * c, decayed, line),
    "a divisor": steps(lambda x, c: x / c, decayed, line),
    "a summand": steps(lambda x, c: (x + c).relu(), decayed, line),
    "a matrix": steps(lambda x, c: x @ c, decayed, lambda: torch.ones(4, 4).triu()),
    "weights of a convolution": steps(
        lambda x, c: torch.conv1d(x.unsqueeze(2), c).squeeze(2), decayed, lambda: torch.ones(4, 4, 1).triu()
    ),
    "places": steps(lambda x, c: x[:, c], lambda c, _: c.add_(1).remainder_(4), lambda: torch.arange(4)),
    "a mask": steps(
        lambda x, c: torch.where(c, x, x.relu()),
        lambda c, t: c[t % 4 : t % 4 + 2].logical_not_(),
        lambda: line() > 0,
    ),
    "noise": steps(lambda x, c: x * c, lambda c, t: c.normal_(generator=torch.Generator().manual_seed(t)), line),
    "a part of a factor": steps(lambda x, c: x * c, lambda c, _: c[1:3].mul_(-0.9), line),
    "a bound": steps(lambda x, c: torch.maximum(x, c), decayed, line),
    "a summand and a signal": by_signal(lambda x, c: (x + c).relu(), line),
    "a factor and a signal": by_signal(lambda x, c: x * c, line),
    "a summand and factor and a signal": by_signal(lambda x, c: torch.addcmul(c, x, c), line),
    "a moving mean": moving_mean,
    "a cumulative sum": cumulative,
}


class Reader(nn.Module):
    """The function of the pixels, or of a layer, and a linear output."""

    def __init__(self, function, kept, on_pixels):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.out = nn.Linear(4, 4, bias=False), nn.Linear(STEPS * 4, 1)
        self.function, self.kept, self.on_pixels = function, kept, on_pixels
        self.double()

    def forward(self, x):
        return self.out(self.function(x * 1.0 if self.on_pixels else self.layer(x), self.kept).flatten(1))


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("rule", [Epsilon(1e-12), ZPlus(), AlphaBeta(2, 1), Gamma(0.25)])
@pytest.mark.parametrize("on_pixels", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_was_read_counts(name, on_pixels, rule):
    x, explain = torch.randn(1, STEPS, 4, generator=torch.manual_seed(1)), LRP(Composite(rule), start="logit")
    ours, plain = (Reader(FUNCTIONS[name], kept, on_pixels) for kept in (False, True))
    with torch.no_grad():
        before = ours(x)
        torch.testing.assert_close(before, plain(x), rtol=0, atol=0)
    assert_equal(explain(ours, x, 0), explain(plain, x, 0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), before, rtol=0, atol=0)


def test_a_buffer_that_is_overwritten_is_put_back():
    class Decays(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("decay", torch.ones(4))

        def forward(self, x):
            first = x[:, 0] * self.decay
            self.decay.mul_(0.5)
            return (first + x[:, 1] * self.decay).sum(1, keepdim=True)

    model, x = Decays(), torch.rand(2, 2, 4)
    relevance = LRP(Epsilon(1e-12))(model, x, 0)
    torch.testing.assert_close(relevance, x * torch.tensor([1.0, 0.5]).view(1, 2, 1))
    assert torch.equal(model.decay, torch.ones(4))
