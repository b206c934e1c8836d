"""The oracle `by_the_book` itself, against torch's outputs and a second derivation that shares nothing with it.

Epsilon-LRP is gradient times input of a network in which each activation is replaced by a function of the same value
and another slope: value / (total + epsilon) of the sum that it reads, gates being constants. For z+ and alpha-beta
totals are sums of positive and of negative parts, carried along beside the values.
"""

import numpy as np
import pytest
import torch
from by_the_book import Network
from shares import Book, share
from torch import nn

KINDS = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN tanh": nn.RNN,
    "RNN relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}
INPUTS, UNITS, STEPS = 4, 3, 6


def made(kind, seed=0, **options):
    torch.manual_seed(seed)
    module = KINDS[kind](INPUTS, UNITS, batch_first=True, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def stabiliser(total, rule):
    return rule.epsilon * torch.where(total >= 0, 1.0, -1.0).double()


def handed_on(value, total, rule):
    """`value` with the slope value / (total + epsilon)."""
    total = total + 0 * value
    safe = total.detach() + stabiliser(total, rule)
    way = value.detach() / safe * total
    return value.detach() + way - way.detach()


def with_constant(total, constant, inputs, rule):
    """A sum with its constant, which takes its share, or none, or hands it to the inputs, epsilon's as well."""
    if rule.bias == "ignore":
        return total
    if rule.bias == "share":
        return total + constant
    whole = (total + constant).detach()
    lost = constant.detach() + stabiliser(whole, rule)
    evenly = sum((x / x.detach()).sum() for x in inputs) / sum(x.numel() for x in inputs)
    total = total + lost * evenly
    return total - total.detach() + whole


def second_derivation(module, x, rule, h=None, c=None):
    """The h of all steps of one layer of one sequence (T, I), to be differentiated."""
    W, U = module.weight_ih_l0, module.weight_hh_l0
    b, d = module.bias_ih_l0.detach(), module.bias_hh_l0.detach()
    n = module.hidden_size
    hidden = []
    start_h, start_c = (torch.zeros(n).double() if s is None else s for s in (h, c))
    h, m, kept, signals = start_h, torch.zeros(n).double(), torch.ones(n).double(), []
    for x_t in x:
        inputs = [x_t, h] if signals else [x_t]
        g, k = W @ x_t, U @ h

        def split(parts, which, units=n):
            return parts[which * units : (which + 1) * units]

        gates = torch.sigmoid(g + b + k + d).detach()
        which, reset = {"LSTM": 2, "GRU": 2}.get(module.mode, 0), 1.0
        if module.mode == "GRU":
            reset = split(gates, 0)
        recurrent, constant = reset * split(k, which), split(b, which) + reset * split(d, which)
        if not signals:
            recurrent, constant = 0.0, constant + recurrent.detach()
        total = split(g, which) + recurrent
        value = total + constant
        signal = torch.relu(value) if module.mode == "RNN_RELU" else torch.tanh(value)
        signal = handed_on(signal, with_constant(total, constant, inputs, rule), rule)
        signals.append(signal)
        if module.mode.startswith("RNN"):
            h = signal
        else:
            write, keep = split(gates, 0), split(gates, 1)
            if module.mode == "GRU":
                write, keep, start = 1 - keep, keep, start_h
            else:
                start = start_c
            m, kept = keep * m + write * signal, keep * kept
            memory, fixed = m, kept * start
            total = with_constant(memory, fixed, signals, rule) if rule.bias != "spread" else memory + fixed
            h = handed_on(memory.detach() + fixed, total, rule) if module.mode == "GRU" else memory + fixed
            if rule.memory == "per_step":
                h = handed_on(memory.detach() + fixed, total, rule)
                m, kept = h, torch.zeros(n).double()
            if module.mode == "LSTM":
                lower = h if rule.memory == "per_step" else total
                way = handed_on(torch.tanh(h), lower, Book() if rule.memory == "per_step" else rule)
                h = split(gates, 3) * way
        hidden.append(h)
    return torch.stack(hidden)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("memory", ["merged", "per_step"])
@pytest.mark.parametrize("bias", ["share", "ignore", "spread"])
@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_epsilon_is_gradient_times_input_of_other_slopes(kind, epsilon, bias, memory, started):
    if bias == "spread" and (epsilon or started or kind == "RNN relu"):
        pytest.skip("what the memory or a dead unit spreads is no slope: see test_spread_conserves")
    module, rule = made(kind), Book(epsilon=epsilon, memory=memory, bias=bias)
    x = torch.randn(STEPS, INPUTS, dtype=torch.float64)
    h, c = torch.randn(2, UNITS, dtype=torch.float64) if started else (None, None)
    leaf = x.clone().requires_grad_()
    hidden = second_derivation(module, leaf, rule, h, c)
    weights = torch.randn(STEPS, UNITS, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * hidden).sum(), leaf)
    network = Network(module, x.numpy(), *(None if s is None else s.numpy()[None] for s in (h, c)))
    np.testing.assert_allclose(hidden.detach(), network.output, rtol=1e-12)
    expected = network.relevance(rule, output=weights.numpy() * network.output)
    assert np.abs((gradient * x).numpy() - expected).max() <= 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
@pytest.mark.parametrize("memory", ["merged", "per_step"])
def test_spread_conserves(memory, epsilon, kind, started):
    module = made(kind, num_layers=2, bidirectional=True)
    x = np.random.default_rng(0).normal(size=(STEPS, INPUTS))
    starts = np.random.default_rng(1).normal(size=(2, 4, UNITS)) if started else (None, None)
    network = Network(module, x, *starts)
    R = network.relevance(Book(epsilon=epsilon, memory=memory, bias="spread"), output=network.output)
    np.testing.assert_allclose(R.sum(), network.output.sum(), rtol=1e-10)


@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "bidirectional": True}, {"proj_size": 2}])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_torchs(kind, options):
    if "proj_size" in options and kind != "LSTM":
        pytest.skip("torch has projections only for nn.LSTM")
    module = made(kind, **options)
    x = torch.randn(1, STEPS, INPUTS, dtype=torch.float64)
    output, state = module(x)
    network = Network(module, x[0].numpy())
    np.testing.assert_allclose(network.output, output[0].detach(), rtol=1e-12)
    h_n, c_n = state if kind == "LSTM" else (state, None)
    np.testing.assert_allclose(network.h_n, h_n[:, 0].detach(), rtol=1e-12)
    if c_n is not None:
        np.testing.assert_allclose(network.c_n, c_n[:, 0].detach(), rtol=1e-12)


def test_a_sum_is_shared_as_written_down_by_hand():
    z, constant, R = np.array([[2.0, -1.0]]), np.array([1.0]), np.array([4.0])
    for book, expected in (
        (Book(), [4, -2]),
        (Book(epsilon=2.0), [2, -1]),
        (Book(bias="ignore"), [8, -4]),
        (Book(bias="spread"), [5, -1]),
        (Book("gamma", gamma=1.0), [16 / 5, -4 / 5]),
        (Book("z+"), [8 / 3, 0]),
        (Book("alpha-beta", alpha=2.0, beta=1.0), [16 / 3, -4]),
    ):
        np.testing.assert_allclose(share(z, constant, R, book), expected, err_msg=str(book))
