"""Fused LSTMs over long sequences: never NaN, in float32 what float64 says, in float64 what the book says."""

import numpy as np
import pytest
import torch
from by_the_book import Network
from readers import assert_equal
from shares import Book, share
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, DeepTaylor, Epsilon, Gamma, ZPlus

METHODS = {
    "z+": lambda: LRP(ZPlus()),
    "alpha-beta": lambda: LRP(AlphaBeta(1.5, 0.5)),
    "deep Taylor": lambda: DeepTaylor(-5, 5),
    "epsilon": lambda: LRP(Epsilon(1e-3)),
    "gamma": lambda: LRP(Gamma(0.25)),
}


class Reader(nn.Module):
    """A fused LSTM read at its last step."""

    def __init__(self, units=12, num_layers=1, **options):
        super().__init__()
        torch.manual_seed(2)
        self.rnn = nn.LSTM(4, units, num_layers, batch_first=True, **options)
        self.out = nn.Linear(units * (2 if self.rnn.bidirectional else 1), 3, bias=False)
        with torch.no_grad():
            self.out.weight[2] = -self.out.weight[:2].sum(0)  # one of the logits is positive

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize("name", ["z+", "alpha-beta", "deep Taylor"])
@pytest.mark.parametrize("steps", [100, 250])
def test_float32_equals_float64(steps, name):
    """Positive sums that are merged through time become smaller than any float32: they are shared all the same."""
    model, x = Reader(60, num_layers=2), torch.randn(4, steps, 4)
    target = model(x).argmax(1)
    single = METHODS[name]()(model, x, target)
    double = METHODS[name]()(model.double(), x.double(), target)
    assert single.isfinite().all()
    assert_equal(single.double(), double, 1e-4)


def test_float64_equals_the_book():
    model, x = Reader(num_layers=2, bidirectional=True).double(), torch.randn(2, 200, 4, dtype=torch.float64)
    expected, book = [], Book("z+")
    for example in x.numpy():
        net, V = Network(model.rnn, example), model.out.weight.detach().numpy()
        logits, R = V @ net.output[-1], np.zeros_like(net.output)
        R[-1] = share(V * net.output[-1], np.zeros(3), np.where(np.arange(3) == 1, logits, 0), book)
        expected.append(net.relevance(book, output=R))
    relevance = LRP(ZPlus(), start="logit")(model, x, 1)
    assert_equal(relevance, torch.tensor(np.array(expected)), 1e-8)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [250, 1_000])
def test_fused_modules_are_never_nan(steps, dtype, name):
    model = Reader(*((60, 2) if steps == 250 else (8, 1))).to(dtype)
    x = torch.randn(4, steps, 4).to(dtype)
    assert METHODS[name]()(model, x).isfinite().all()


@pytest.mark.parametrize("name", ["z+", "epsilon"])
def test_ten_thousand_steps_of_a_fused_module(name):
    model, x = Reader(4), torch.randn(1, 10_000, 4)
    assert METHODS[name]()(model, x).isfinite().all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("start", [0, 1, -1])
def test_dead_and_constant_sequences(start, dtype, name):
    """Inputs that are all the same, zero too: sums that are exactly zero, and gates that are shut."""
    model = Reader(4).to(dtype)
    with torch.no_grad():
        model.rnn.bias_ih_l0[4:8] -= 50  # it forgets all
    x = torch.full((2, 300, 4), float(start), dtype=dtype)
    assert METHODS[name]()(model, x).isfinite().all()


@pytest.mark.parametrize("memory", ["merged", "per_step"])
def test_per_step_memories_are_finite(memory):
    method = LRP(Composite(Epsilon(1e-3), memory=memory), start="logit")
    assert method(Reader(), torch.randn(2, 500, 4), 1).isfinite().all()
