"""Recurrent networks that write the same function in two ways have one relevance."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

METHODS = {
    "epsilon": Composite(Epsilon(0.01)),
    "z+": Composite(ZPlus()),
    "alpha-beta": Composite(AlphaBeta(2, 1)),
    "gamma": Composite(Gamma(0.25)),
    "spread": Composite(Epsilon(0.01), bias="spread"),
    "ignore": Composite(AlphaBeta(1.5, 0.5), bias="ignore"),
    "per step": Composite(AlphaBeta(1.5, 0.5), memory="per_step"),
    "per step, spread": Composite(Gamma(0.25), memory="per_step", bias="spread"),
    "box": Composite(ZPlus(), pixels=ZBox(-2, 2)),
    "w^2": Composite(ZPlus(), pixels=WSquare()),
    "flat": Composite(ZPlus(), pixels=Flat()),
}
UNITS = 4


class Network(nn.Module):
    """Reads (B, T, 3) as `way` does, with these weights."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way, self.read, self.hidden = way, nn.Linear(3, 4 * UNITS), nn.Linear(UNITS, 4 * UNITS, bias=False)
        self.more, self.out = nn.Linear(UNITS, UNITS), nn.Linear(UNITS, 3)
        self.start, self.scale = nn.Parameter(torch.randn(UNITS)), nn.Parameter(torch.rand(UNITS))
        self.double()

    def forward(self, x):
        return self.out(self.way(self, x))


def zeros(x):
    return x.new_zeros(len(x), UNITS)


def independent_units(rectified):
    """IndRNN: h_t = ReLU(W x_t + u h_{t-1})."""

    def way(m, x):
        h = zeros(x)
        for step in m.read(x).unbind(1):
            h = rectified(step[:, :UNITS] + m.scale * h)
        return h

    return way


def cut_off(h):
    h = h.clone()
    h[h < 0] = 0
    return h


def cut_off_where_another_is(h):
    copied = h.clone()
    copied[h <= 0] = 0
    return copied


RECTIFIED = {
    "where": lambda h: torch.where(h > 0, h, 0.0),
    "where not": lambda h: torch.where(~(h <= 0), h, torch.zeros_like(h)),
    "where below": lambda h: torch.where(h.lt(0), torch.zeros_like(h), h),
    "a mask": lambda h: h * (h > 0),
    "a mask of numbers": lambda h: (h >= 0).to(h.dtype) * h,
    "a step": lambda h: h * torch.heaviside(h, h.new_tensor(0.5)),
    "a mask of what is detached": lambda h: h * (h.detach() > 0),
    "filled": lambda h: h.masked_fill(h < 0, 0),
    "filled in place": lambda h: h.clone().masked_fill_(h < 0, 0.0),
    "cut off": cut_off,
    "a copy cut off": cut_off_where_another_is,
}
WRITTEN_OUT = {
    "SiLU": (lambda h: h * torch.sigmoid(h), F.silu),
    "SiLU of a copy": (lambda h: h.clone().mul_(h.sigmoid()), F.silu),
    "SiLU, the other way round": (lambda h: h.sigmoid() * h, F.silu),
    "SiLU, divided": (lambda h: h / (1 + torch.exp(-h)), F.silu),
    "SiLU by a reciprocal": (lambda h: h * (1 / (1 + torch.exp(-h))), F.silu),
    "SiLU by a power": (lambda h: h * (1 + torch.exp(-h)) ** -1, F.silu),
    "SiLU by two exps": (lambda h: h * (torch.exp(h) / (1 + torch.exp(h))), F.silu),
    "SiLU of a log-sigmoid": (lambda h: h * F.logsigmoid(h).exp(), F.silu),
    "softsign": (lambda h: h * (1 / (1 + h.abs())), F.softsign),
    "softplus": (lambda h: torch.logaddexp(h, h.new_zeros(1)), F.softplus),
    "GELU": (lambda h: 0.5 * h * (1 + torch.erf(h / 2**0.5)), F.gelu),
    "Mish": (lambda h: h * torch.tanh(F.softplus(h)), F.mish),
    "Mish of a logarithm": (lambda h: h * torch.tanh(torch.log(1 + torch.exp(h))), F.mish),
    "Mish of log1p": (lambda h: h * torch.tanh(torch.log1p(torch.exp(h))), F.mish),
    "Mish of logaddexp": (lambda h: h * torch.tanh(torch.logaddexp(torch.zeros_like(h), h)), F.mish),
    "hardswish": (lambda h: h * F.relu6(h + 3) / 6, F.hardswish),
    "a square in place": (lambda h: h.clone().pow_(2), torch.square),
    "a power in place": (lambda h: F.relu(h).pow_(torch.tensor(3.0)), lambda h: F.relu(h) ** 3),
    "a root": (lambda h: torch.sqrt(F.relu(h)), lambda h: F.relu(h) ** 0.5),
}
LEAKY = {
    "where": lambda h: torch.where(h > 0, h, 0.1 * h),
    "where below": lambda h: torch.where(h < 0, 0.1 * h, h),
    "maximum": lambda h: torch.maximum(h, 0.1 * h),
    "max": lambda h: (h / 10).max(h),
    "a learned slope": lambda h: torch.where(h > 0, h, torch.tensor(0.1, dtype=h.dtype) * h),
    "a slope a unit": lambda h: torch.where(h >= 0, h, h * h.new_full((UNITS,), 0.1)),
    "maximum with a learned slope": lambda h: torch.max(h, h * h.new_full((1,), 0.1)),
}


def memory(f=None, start=None, keep=None, get=None, act=torch.tanh):
    """An LSTM; `keep` and `get` put h and c away, `f` computes f c."""
    f = f or (lambda a, c: torch.sigmoid(a) * c)
    keep, get = keep or (lambda h, c: (h, c)), get or (lambda state: state)

    def way(m, x):
        c = zeros(x) if start is None else start(m, x)
        state = keep(zeros(x), c)
        for t, step in enumerate(x.unbind(1)):
            h, c = get(state) if t else (zeros(x), c)
            i, a, g, o = (m.read(step) + m.hidden(h)).chunk(4, 1)
            c = f(a, c) + torch.sigmoid(i) * act(g)
            state = keep(torch.sigmoid(o) * torch.tanh(c), c)
        return get(state)[0]

    return way


def in_empty(*parts):
    """Side by side in a buffer that holds something before; column by column, the last one first."""
    buffer = torch.full((len(parts[0]), sum(p.shape[1] for p in parts)), 7.0, dtype=parts[0].dtype)
    for column, part in reversed(list(enumerate(torch.cat(parts, 1).unbind(1)))):
        buffer[:, column] = part
    return buffer


def columns(state):
    return torch.stack(state.unbind(1)[:UNITS], 1), torch.stack(state.unbind(1)[UNITS:], 1)


def apart(state):
    return state[..., :UNITS], state[..., UNITS:]


def started(m, x):
    return m.start.expand(len(x), UNITS)


MEMORIES = {
    "joined, read by columns": {"keep": lambda h, c: torch.cat([h, c], 1), "get": columns},
    "in a buffer": {"keep": in_empty, "get": columns},
    "rolled": {
        "keep": lambda h, c: torch.cat([c, h], 1).roll(UNITS, 1),
        "get": lambda state: state.index_select(1, torch.arange(2 * UNITS)).chunk(2, 1),
    },
    "through a mask": {
        "keep": lambda h, c: torch.where(torch.ones_like(h[:, :1], dtype=torch.bool), torch.cat([h, c], 1), 7.0),
        "get": apart,
    },
    "transposed": {"keep": lambda h, c: (h, c.T.contiguous()), "get": lambda state: (state[0], state[1].T)},
    "twice and half": {"keep": lambda h, c: (h, 2 * c), "get": lambda state: (state[0], state[1] / 2)},
    "divided": {"f": lambda a, c: c / (1 + torch.exp(-a))},
    "a detached gate": {"f": lambda a, c: torch.sigmoid(a.detach()) * c, "start": started},
    "a given start, divided": {"f": lambda a, c: c / (1 + torch.exp(-a)), "start": started},
}


def filled_in_parts(m, x):
    """A buffer of W x_t, to which a bias is added afterwards; before, it holds something else."""
    weight, bias = m.read.weight[:UNITS], m.read.bias[:UNITS]
    drive = torch.full((len(x), x.shape[1], UNITS), 7.0, dtype=x.dtype)
    for t, step in enumerate(x.unbind(1)):
        drive[:, t, 2:] = F.linear(step, weight[2:])
        drive[:, t, :2] = step @ weight[:2].T
    return torch.relu(drive + bias).sum(1)


def not_in_parts(m, x):
    return torch.relu(F.linear(x, m.read.weight[:UNITS], m.read.bias[:UNITS])).sum(1)


def scaled_together(together):
    """A gate that scales a state and a sum, before both are added to something."""

    def way(m, x):
        gate = torch.sigmoid(m.read(x[:, 0])[:, -UNITS:])
        one, other = torch.tanh(m.read(x[:, 0])[:, :UNITS]), m.read(x[:, 1])[:, :UNITS]
        if together:
            scaled = (torch.cat([gate, gate], 1) * torch.cat([one, other], 1)).chunk(2, 1)
        else:
            scaled = gate * one, gate * other
        return torch.relu(scaled[0] + scaled[1] + m.more(one))

    return way


def reset_before(gate):
    """A GRU that resets its state before the matrix; the first state is 0, whatever the gate is."""

    def way(m, x):
        h = zeros(x)
        for t, step in enumerate(x.unbind(1)):
            reset = torch.sigmoid(m.read(step)[:, UNITS : 2 * UNITS])
            h = torch.tanh(m.read(step)[:, :UNITS] + F.linear(gate(reset, h, t), m.hidden.weight[:UNITS]))
        return h

    return way


def first_step(product):
    """x and a start state of zeros in one matrix product."""

    def way(m, x):
        h, weight = zeros(x), torch.cat([m.read.weight, m.hidden.weight], 1)[:UNITS]
        for step in x.unbind(1):
            h = torch.relu(product(torch.cat([step, h], 1), weight) + m.read.bias[:UNITS])
        return h

    return way


def beside_a_layer_of_units(joined):
    """A layer that reads pixels beside one that reads units."""

    def way(m, x):
        pixels = m.read(x[:, 0])[:, :UNITS]
        units = m.more(torch.relu(m.read(x[:, 1])[:, :UNITS]))
        if joined:
            return F.linear(torch.cat([pixels, units], 1), m.hidden.weight[: 2 * UNITS].T.contiguous())
        return F.linear(pixels, m.hidden.weight[:UNITS].T) + F.linear(units, m.hidden.weight[UNITS : 2 * UNITS].T)

    return way


def padded(by_product):
    def way(m, x):
        units = torch.tanh(m.read(x[:, 0])[:, :UNITS])
        wide = F.pad(units, (0, 2 * UNITS))
        weight = m.hidden.weight.T.reshape(UNITS, -1)[:, : 3 * UNITS]
        return (wide.unsqueeze(1) * weight).sum(2) if by_product else wide @ weight.T

    return way


PAIRS = (
    {f"{how} written out": tuple(map(independent_units, pair)) for how, pair in WRITTEN_OUT.items()}
    | {f"ReLU by {how}": (independent_units(f), independent_units(torch.relu)) for how, f in RECTIFIED.items()}
    | {f"ReLU by {how}, in a memory": (memory(act=f), memory(act=torch.relu)) for how, f in RECTIFIED.items()}
    | {
        f"leaky ReLU by {how}": tuple(map(independent_units, (f, lambda h: F.leaky_relu(h, 0.1))))
        for how, f in LEAKY.items()
    }
    | {f"memory {how}": (memory(**ways), memory(start=ways.get("start"))) for how, ways in MEMORIES.items()}
    | {"a buffer of sums": (filled_in_parts, not_in_parts)}
    | {"a sum and a state scaled together": (scaled_together(True), scaled_together(False))}
    | {
        "reset before": (
            reset_before(lambda r, h, t: r * h),
            reset_before(lambda r, h, t: r * h if t else h),
        ),
        "W x before a ReLU": (
            lambda m, x: torch.relu((m.read.weight[:UNITS] @ x[:, 0].T).T),
            lambda m, x: torch.relu(F.linear(x[:, 0], m.read.weight[:UNITS])),
        ),
        "a difference of a constant": (
            lambda m, x: torch.rsub(-m.start, torch.relu(m.read(x[:, 0])[:, :UNITS])),
            lambda m, x: torch.relu(m.read(x[:, 0])[:, :UNITS]) + m.start,
        ),
        "twice negated": (
            lambda m, x: torch.relu(m.read(x[:, 0])[:, :UNITS].neg().neg() - -m.read(x[:, 1])[:, :UNITS]),
            lambda m, x: torch.relu(m.read(x[:, 0])[:, :UNITS] + m.read(x[:, 1])[:, :UNITS]),
        ),
        "pixels and units in one tensor": (beside_a_layer_of_units(True), beside_a_layer_of_units(False)),
        "padding times weights": (padded(True), padded(False)),
    }
    | {
        f"a start state read by {name}": (first_step(f), first_step(F.linear))
        for name, f in {
            "W x": lambda x, w: (w @ x.T).T,
            "a row at a time": lambda x, w: torch.stack([x @ row for row in w], 1),
            "an example at a time": lambda x, w: torch.stack([w @ one for one in x]),
            "bmm": lambda x, w: torch.bmm(x.unsqueeze(1), w.T.expand(len(x), -1, -1)).squeeze(1),
            "a convolution": lambda x, w: F.conv1d(x.unsqueeze(2), w.unsqueeze(2)).squeeze(2),
        }.items()
    }
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pair", PAIRS)
def test_it_has_one_relevance(pair, method):
    torch.manual_seed(1)
    x = torch.randn(3, 4, 3, dtype=torch.float64).clamp(-2, 2)
    one, other = map(Network, PAIRS[pair])
    torch.testing.assert_close(one(x), other(x), rtol=1e-12, atol=1e-12)
    explain = LRP(METHODS[method], start="logit")
    expected = explain(other, x, 1)
    assert bool((expected != 0).any())
    torch.testing.assert_close(explain(one, x, 1), expected, rtol=1e-8, atol=1e-10)
