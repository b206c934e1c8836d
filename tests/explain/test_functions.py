"""Functions with f(0) != 0 as signals: refused, or by the identity rule if the composite says so."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, DeepTaylor, Epsilon, UnexplainableError, ZPlus

FUNCTIONS = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "power of a number": lambda h: 1.5**h,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "acos": lambda h: torch.acos(h / 100),
    "acosh": lambda h: torch.acosh(100 * h),
    "erfc": torch.erfc,
    "log": torch.log,
    "log2": torch.log2,
    "log10": torch.log10,
    "reciprocal": torch.reciprocal,
    "quotient": lambda h: 2 / h,
    "rsqrt": torch.rsqrt,
    "negative power": lambda h: h**-1.5,
    "powers": lambda h: h ** -torch.arange(1.0, 5.0, dtype=h.dtype),
}


class Through(nn.Module):
    """A function between two linear layers; the first one's sums are positive."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.out, self.function = nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False), function
        self.double()
        self.layer.weight.data.abs_()

    def forward(self, x):
        return self.out(self.function(self.layer(x)))


def shares(weight, x, relevance, positive):
    """The naive rule: each unit's relevance in proportion to its (positive) contributions."""
    parts = weight * x[:, None, :]
    parts = parts.clamp(min=0) if positive else parts
    total = parts.sum(2, keepdim=True)
    return (parts / torch.where(total == 0, 1, total) * relevance[:, :, None]).sum(1)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_passes_relevance_on_if_asked(name, positive):
    model, x = Through(FUNCTIONS[name]), torch.rand(6, 5, dtype=torch.float64)
    rule = ZPlus() if positive else Epsilon(0)
    with pytest.raises(UnexplainableError, match=r'Composite\(\.\.\., functions="identity"\)'):
        LRP(rule, start="logit")(model, x, 1)
    relevance = LRP(Composite(rule, functions="identity"), start="logit")(model, x, 1)
    hidden = model.layer(x).detach()
    logit = model(x)[:, 1:2].detach()
    within = shares(model.out.weight[1:2].detach(), model.function(hidden), logit, positive)
    expected = shares(model.layer.weight.detach(), x, within, positive)
    torch.testing.assert_close(relevance, expected)


class Decaying(nn.Module):
    """A memory that forgets by exp(-relu(.)), and is divided by a sum of exponentials."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.decay, self.value, self.out = (nn.Linear(*sizes) for sizes in ((3, 6), (3, 6), (6, 2)))

    def forward(self, x):
        memory = x.new_zeros(len(x), 6)
        for step in x.unbind(1):
            memory = memory * torch.exp(-F.relu(self.decay(step))) + torch.tanh(self.value(step))
        return self.out(memory * torch.rsqrt(1 + torch.exp(self.decay(x[:, -1]))))


@pytest.mark.parametrize("rule", [Epsilon(), ZPlus(), AlphaBeta(2, 1)])
def test_what_scales_a_signal_gets_nothing_either_way(rule):
    model, x = Decaying(), torch.rand(4, 7, 3)
    methods = [LRP(Composite(rule, functions=how), start="logit") for how in ("refuse", "identity")]
    assert torch.equal(*(method(model, x, 1) for method in methods))


class LogSpectrum(nn.Module):
    """What networks for speech begin with: a logarithm of sums of a power spectrum."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.bands, self.rnn, self.out = torch.rand(17, 6).double(), nn.GRU(6, 8), nn.Linear(8, 2)
        self.double()

    def forward(self, x):
        window = torch.hann_window(32, dtype=x.dtype)
        spectrum = torch.stft(x, 32, 16, window=window, center=False, return_complex=True)
        steps, _ = self.rnn((spectrum.abs().square().permute(2, 0, 1) @ self.bands + 1e-3).log())
        return self.out(steps[-1])


def test_the_logarithm_of_a_spectrum():
    model, x = LogSpectrum().eval(), torch.randn(3, 160, dtype=torch.float64)
    with pytest.raises(UnexplainableError, match="functions="):
        DeepTaylor()(model, x, 1)
    composite = Composite(Epsilon(1e-9), bias="spread", functions="identity")
    relevance = LRP(composite, start="logit")(model, x, 1)
    torch.testing.assert_close(relevance.sum(1), model(x)[:, 1].detach(), rtol=1e-6, atol=1e-9)


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="functions='ignore': choose from refuse, identity"):
        Composite(Epsilon(), functions="ignore")
