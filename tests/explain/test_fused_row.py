"""Recurrent layers as one node each, against the same layers taken apart step by step."""

import pytest
import torch
from readers import KINDS, READS, Reader, assert_equal, data, start_states
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    WSquare,
    ZBox,
    ZPlus,
)
from rnnx_lightning.explain.operations import recurrent
from rnnx_lightning.explain.rules import Rule
from rnnx_lightning.explain.sharing import Signed

SHAPES = {
    "1 layer": {},
    "1 layer, both directions": {"bidirectional": True},
    "2 layers, both directions": {"num_layers": 2, "bidirectional": True},
    "3 layers without biases": {"num_layers": 3, "bias": False},
}


class Own(Rule):
    """A user's: contributions a_i w_ij, and the weights' squares, by one denominator."""

    sharing = Signed(1e-2)
    plain = False

    def contributions(self, layer, channel):
        return [*layer.plain(channel), *layer.of_weights("square")]


RULES = {
    "z+": ZPlus(),
    "alpha-beta": AlphaBeta(1.5, 0.5),
    "epsilon": Epsilon(1e-3),
    "epsilon 0": Epsilon(0.0),
    "gamma": Gamma(0.25),
    "flat": Flat(),
    "w^2": WSquare(),
    "z^B for all": ZBox(-5.0, 5.0),
    "z^B for pixels": Composite(ZPlus(), pixels=ZBox(-5.0, 5.0)),
    "z^B for pixels, alpha-beta": Composite(AlphaBeta(1.5, 0.5), pixels=ZBox(-5.0, 5.0)),
    "flat for pixels": Composite(AlphaBeta(2.0, 1.0), pixels=Flat()),
    "a user's own": Own(),
}


def watched(monkeypatch):
    """A list of whether each call of a recurrent module was taken as one node a layer."""
    calls, original = [], recurrent.all_steps

    def call(*arguments):
        outputs = original(*arguments)
        calls.append(outputs is not None)
        return outputs

    monkeypatch.setattr(recurrent, "all_steps", call)
    return calls


def composite(rule, **options):
    given = rule if isinstance(rule, Composite) else Composite(rule)
    return Composite(given.default, given.pixels, **options)


@pytest.fixture
def both(monkeypatch):
    """(method, ...) to its relevance by one node a layer, and step by step."""

    def run(method, model, x, target, **arguments):
        calls = watched(monkeypatch)
        one = method(model, x, target, **arguments)
        assert calls
        assert all(calls)
        monkeypatch.setattr(recurrent, "all_steps", lambda *_: None)
        other = method(model, x, target, **arguments)
        monkeypatch.undo()
        return one, other

    return run


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_rules(kind, rule, shape, both):
    (x, target), model = data(), Reader(kind, "all steps", **SHAPES[shape])
    assert_equal(*both(LRP(RULES[rule], start="logit"), model, x, target))


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("memory", ["merged", "per_step"])
@pytest.mark.parametrize("bias", ["share", "spread", "ignore"])
@pytest.mark.parametrize("rule", ["z+", "alpha-beta", "epsilon", "gamma", "z^B for pixels", "a user's own"])
@pytest.mark.parametrize("kind", KINDS)
def test_biases_memories_and_start_states(kind, rule, bias, memory, started, both):
    (x, target), model = data(), Reader(kind, "all steps", num_layers=2, bidirectional=True)
    hx = start_states(model.rnn) if started else None
    method = LRP(composite(RULES[rule], bias=bias, memory=memory), start="logit")
    assert_equal(*both(method, model, x, target, hx=hx))


class Readings(nn.Module):
    """Reads every output twice, in a sum with other terms and through a layer."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(1)
        self.rnn = KINDS[kind](4, 4, num_layers=2, bidirectional=True).double()
        self.out = nn.Linear(8, 3).double()
        self.state = nn.Linear(4, 3).double()

    def forward(self, x):
        output, states = self.rnn(x)
        states = states if isinstance(states, tuple) else (states,)
        both = output + torch.cat([x, x], -1)  # the memory of a GRU is a term of this sum
        read = self.out(torch.relu(both)).sum(0) + self.out(output[2]) + self.out(output.mean(0))
        for state in states:
            read = read + self.state(state + x[:4]).sum(0) + self.state(state[1].tanh())
        return read


@pytest.mark.parametrize("steps", [4, 30])
@pytest.mark.parametrize("rule", ["z+", "alpha-beta", "epsilon", "gamma", "flat", "z^B for pixels"])
@pytest.mark.parametrize("kind", KINDS)
def test_several_readers_of_every_output(kind, rule, steps, both):
    torch.manual_seed(2)
    x, method = torch.randn(steps, 3, 4, dtype=torch.float64), LRP(RULES[rule], start="logit")
    assert_equal(*both(method, Batched(Readings(kind)), x.transpose(0, 1), 1))


class Batched(nn.Module):
    """Examples first."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.transpose(0, 1))


class Overwriting(nn.Module):
    """Overwrites a part of every output; they share no memory."""

    def __init__(self, kind, **options):
        super().__init__()
        torch.manual_seed(1)
        self.rnn = KINDS[kind](4, 3, **options).double()
        self.out = nn.Linear(6 if self.rnn.bidirectional else 3, 3).double()
        self.state = nn.Linear(3, 3).double()

    def forward(self, x):
        output, states = self.rnn(x)
        states = states if isinstance(states, tuple) else (states,)
        for state in states:
            state[:1] *= 0.5
        output[:, 1:3] = 0.1
        output[1].mul_(2.0)
        time = 1 if self.rnn.batch_first else 0
        return self.out(output.sum(time)) + sum(self.state(state[0]) for state in states)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_may_be_overwritten(kind, bidirectional, batch_first, both):
    torch.manual_seed(2)
    x, model = (
        torch.randn(5, 5, 4, dtype=torch.float64),
        Overwriting(kind, bidirectional=bidirectional, batch_first=batch_first),
    )
    assert_equal(*both(LRP(Epsilon(1e-3), start="logit"), model, x, 1))


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("rule", ["z+", "epsilon"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_output_alone(kind, rule, read, both):
    if read == "c_n" and kind != "LSTM":
        pytest.skip("there is none")
    (x, target), model = data(), Reader(kind, read, num_layers=2, bidirectional=True)
    assert_equal(*both(LRP(RULES[rule], start="logit"), model, x, target))


@pytest.mark.parametrize("steps", [1, 2, 8, 9, 40])
@pytest.mark.parametrize("rule", [name for name in RULES if name != "epsilon 0"])
@pytest.mark.parametrize("kind", KINDS)
def test_lengths(kind, rule, steps, both):
    torch.manual_seed(0)
    x, model = torch.randn(2, steps, 4, dtype=torch.float64), Reader(kind, bidirectional=True)
    assert_equal(*both(LRP(RULES[rule], start="logit"), model, x, 0))


@pytest.mark.parametrize(
    "rule", [Composite(ZPlus(), pixels=ZBox("data", "data")), Epsilon(1e-3)], ids=["deep Taylor", "epsilon"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_beside_features_and_padding(kind, rule, both):
    """Scaled pixels, features and padding in one sequence."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.reader, self.features = Reader(kind, num_layers=2), nn.Linear(4, 2).double()

        def forward(self, x):
            x = torch.cat([2 * x[..., :2] - 1, torch.relu(self.features(x))], -1)
            return self.reader(torch.nn.functional.pad(x, (0, 0, 1, 2)))

    x, target = data()
    assert_equal(*both(LRP(rule, start="logit"), Mixed(), x, target))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_in_training(kind, bidirectional, both):
    """The units that torch's own module drops."""
    (x, target), model = data(), Reader(kind, num_layers=2, dropout=0.5, bidirectional=bidirectional)
    model.train()
    torch.manual_seed(0)
    one, _ = both(LRP(Epsilon(1e-3)), model, x, target)
    torch.manual_seed(0)
    logits = LRP(Epsilon(1e-3), start="logit").explain(model, x, target).logits
    torch.manual_seed(0)
    torch.testing.assert_close(model(x), logits)
    assert one.any()


@pytest.mark.parametrize("kind", KINDS)
def test_layers_by_name(kind, both):
    (x, target), model = data(), Reader(kind, "all steps", bidirectional=True)
    rules = Composite(ZPlus(), by_name={"rnn": AlphaBeta(2.0, 1.0)})
    assert_equal(*both(LRP(rules, start="logit"), model, x, target))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", ["z+", "alpha-beta", "epsilon", "gamma", "z^B for pixels"])
@pytest.mark.parametrize("kind", KINDS)
def test_long_sequences_are_finite(kind, rule, dtype):
    """Where forget gates shrink what was first to 2^-500."""
    torch.manual_seed(0)
    model = Reader(kind, num_layers=2, bidirectional=True).to(dtype)
    with torch.no_grad():
        for name, parameter in model.rnn.named_parameters():
            if "bias" in name and kind == "LSTM":
                parameter[3:6] = -2.0
        model.out.weight.abs_()  # or z+ may find nothing that is positive; processors round bfloat16 differently
    x = torch.randn(2, 200, 4, dtype=dtype)
    relevance = LRP(RULES[rule], start="logit")(model, x, 1)
    assert relevance.isfinite().all()
    assert relevance.any()


@pytest.mark.parametrize("rule", ["z+", "alpha-beta"])
def test_memories_that_would_underflow(rule, both):
    """In float32: one step speaks for the explained class, long ago."""
    torch.manual_seed(0)
    model = nn.LSTM(1, 1, batch_first=True, bias=False)
    with torch.no_grad():
        model.weight_ih_l0.copy_(torch.tensor([[0.0], [0.0], [1.0], [0.0]]))
        model.weight_hh_l0.zero_()
    x = -torch.ones(1, 250, 1)
    x[:, 0] = 1.0
    one, other = both(LRP(RULES[rule], start="logit"), model, x, lambda output: -output[0][:, -1, 0])
    torch.testing.assert_close(one, other)
    assert one.any()


class Decoder(nn.Module):
    """Starts with what an encoder has read."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.GRU(4, 3, batch_first=True), nn.GRU(4, 3, batch_first=True)

    def forward(self, x):
        return self.decoder(x, self.encoder(x)[1])[0][:, -1]


def test_what_is_taken_apart(monkeypatch):
    """Start states that are made of the input, projections, closed sums."""
    calls, x = watched(monkeypatch), torch.randn(2, 5, 4)
    LRP(Epsilon())(Decoder(), x, 1)
    LRP(Epsilon())(nn.LSTM(4, 3, proj_size=2, batch_first=True), x, (1, 1))
    LRP(Composite(Epsilon(), sums="closed"))(nn.LSTM(4, 3, batch_first=True), x, (1, 1))
    assert calls == [True, False, False, False]
