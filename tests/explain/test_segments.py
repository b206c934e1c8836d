"""Recurrent layers explained one segment of time steps after another, against all steps at once."""

import pytest
import torch
from readers import KINDS, READS, Reader, assert_equal, data, start_states
from test_fused_row import RULES, SHAPES, Batched, Readings, composite
from torch import nn

from benchmarks.measure import peak_bytes
from rnnx_lightning.explain import LRP, AlphaBeta, DeepTaylor, Epsilon, InChunks, Sensitivity, ZPlus
from rnnx_lightning.explain.segments import SegmentedRecurrence

SOME = ["z+", "alpha-beta", "epsilon", "gamma", "z^B for pixels", "a user's own"]


@pytest.fixture
def both(monkeypatch):
    """(method, steps, ...) to its relevance at once, and in segments of so many steps."""
    segmented, original = [], SegmentedRecurrence.hand_back

    def hand_back(self, node):
        segmented.append(self)
        original(self, node)

    monkeypatch.setattr(SegmentedRecurrence, "hand_back", hand_back)

    def run(method, steps, *arguments, **options):
        whole = method(*arguments, **options)
        assert not segmented
        parts = InChunks(method, steps=steps)(*arguments, **options)
        assert segmented
        return parts, whole

    return run


@pytest.mark.parametrize("steps", [2, 3, 5])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_rules(kind, rule, shape, steps, both):
    (x, target), model = data(), Reader(kind, "all steps", **SHAPES[shape])
    assert_equal(*both(LRP(RULES[rule], start="logit"), steps, model, x, target))


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read(kind, read):
    if read == "c_n" and kind != "LSTM":
        pytest.skip("only LSTMs have it")
    (x, target), model = data(), Reader(kind, read, num_layers=2, bidirectional=True)
    for rule in SOME:
        method = LRP(RULES[rule], start="logit")
        assert_equal(InChunks(method, steps=4)(model, x, target), method(model, x, target))


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("memory", ["merged", "per_step"])
@pytest.mark.parametrize("bias", ["share", "spread", "ignore"])
@pytest.mark.parametrize("rule", SOME)
@pytest.mark.parametrize("kind", KINDS)
def test_biases_memories_and_start_states(kind, rule, bias, memory, started, both):
    (x, target), model = data(), Reader(kind, "all steps", num_layers=2, bidirectional=True)
    hx = start_states(model.rnn) if started else None
    method = LRP(composite(RULES[rule], bias=bias, memory=memory), start="logit")
    assert_equal(*both(method, 3, model, x, target, hx=hx))


@pytest.mark.parametrize("steps", [4, 7])
@pytest.mark.parametrize("rule", SOME)
@pytest.mark.parametrize("kind", KINDS)
def test_several_readers_of_every_output(kind, rule, steps, both):
    """The memory of a GRU is a term of sums, at every step."""
    torch.manual_seed(2)
    x, method = torch.randn(3, 30, 4, dtype=torch.float64), LRP(RULES[rule], start="logit")
    assert_equal(*both(method, steps, Batched(Readings(kind)), x, 1))


class Long(nn.Module):
    """Reads a recurrent module at its last step."""

    def __init__(self, kind="LSTM", units=32):
        super().__init__()
        torch.manual_seed(1)
        self.rnn, self.out = KINDS[kind](4, units, batch_first=True), nn.Linear(units, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize("method", [LRP(ZPlus()), LRP(AlphaBeta(1.5, 0.5)), DeepTaylor(-5, 5), LRP(Epsilon(1e-3))])
@pytest.mark.parametrize("kind", KINDS)
def test_exponents_go_from_segment_to_segment(kind, method):
    """Positive sums that are merged over 400 steps are smaller than any float32."""
    model, x = Long(kind), torch.randn(2, 400, 4)
    target = model(x).argmax(1)
    whole = method(model, x, target)
    assert whole.abs().sum() > 0
    assert_equal(InChunks(method, steps=30)(model, x, target), whole, 1e-4)


def test_examples_and_steps():
    (x, target), model = data(), Reader("LSTM")
    method = LRP(Epsilon(1e-3))
    assert_equal(InChunks(method, 2, steps=4)(model, x, target), method(model, x, target))


@pytest.mark.parametrize(("rule", "share"), [(Epsilon(1e-3), 0.35), (ZPlus(), 0.2), (AlphaBeta(1.5, 0.5), 0.15)])
def test_memory(rule, share):
    """In segments, hardly more is held than the layer's outputs."""
    model, x, method = Long(), torch.randn(1, 2500, 4), LRP(rule, start="logit")
    needed = [peak_bytes(lambda m=m: m(model, x, 1), x.device) for m in (method, InChunks(method, steps=50))]
    assert needed[1] < share * needed[0]
    outputs = 4 * 2500 * 32  # bytes
    assert needed[1] < 4 * outputs


def test_bad_steps():
    with pytest.raises(ValueError, match="steps=1 must be at least 2"):
        InChunks(LRP(), steps=1)
    with pytest.raises(ValueError, match="Sensitivity cannot explain some time steps at a time; LRP can"):
        InChunks(Sensitivity(), steps=10)
    with pytest.raises(ValueError, match="leave steps out"):
        InChunks(LRP(create_graph=True), steps=10)
