"""nn.LSTM, nn.GRU and nn.RNN, as they are, against `by_the_book`: float64 NumPy."""

import numpy as np
import pytest
import torch
from by_the_book import Network
from readers import KINDS, READS, Reader, assert_equal, by_the_book, data, epsilon, start_states
from shares import Book

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Gamma, ZPlus

SHAPES = {
    "1 layer": {},
    "1 layer, both directions": {"bidirectional": True},
    "2 layers, both directions": {"num_layers": 2, "bidirectional": True},
    "3 layers": {"num_layers": 3},
}


@pytest.mark.parametrize("memory", ["merged", "per_step"])
@pytest.mark.parametrize("value", [0.0, 1e-3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_epsilon(kind, shape, value, memory):
    (x, target), model, book = data(), Reader(kind, **SHAPES[shape]), Book(epsilon=value, memory=memory)
    assert_equal(epsilon(book)(model, x, target), by_the_book(model, x, target, book))


class InParts(torch.nn.Module):
    """The first steps, and then the others from where these end."""

    def __init__(self, kind):
        super().__init__()
        self.whole = Reader(kind)

    def forward(self, x):
        _, state = self.whole.rnn(x[:, :2])
        return self.whole.out(self.whole.rnn(x[:, 2:], state)[0][:, -1])


@pytest.mark.parametrize("memory", ["merged", "per_step"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN tanh"])
def test_a_memory_is_one_over_several_calls(kind, memory):
    (x, target), model = data(), InParts(kind)
    method = LRP(Composite(AlphaBeta(1.5, 0.5), memory=memory), start="logit")
    whole = Reader(kind)
    whole.load_state_dict(model.whole.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(x), whole(x))
    assert_equal(method(model, x, target), method(whole, x, target))


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("bias", ["share", "ignore", "spread"])
@pytest.mark.parametrize("kind", KINDS)
def test_biases_and_start_states(kind, bias, started):
    """Given start states are constants. Of what a memory or a dead ReLU spreads, only the sum is tested."""
    (x, target), model = data(), Reader(kind, num_layers=2, bidirectional=True)
    hx = start_states(model.rnn) if started else None
    book = Book(epsilon=0.0 if bias == "spread" else 1e-3, bias=bias)
    relevance = epsilon(book)(model, x, target, hx=hx)
    if bias != "spread" or not (started or kind == "RNN relu"):
        assert_equal(relevance, by_the_book(model, x, target, book, hx))


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("memory", ["merged", "per_step"])
@pytest.mark.parametrize("value", [0.0, 1e-3])
@pytest.mark.parametrize("kind", KINDS)
def test_spread_adds_up_to_the_logit(kind, value, memory, started):
    (x, target), model = data(), Reader(kind, num_layers=2, bidirectional=True)
    hx = start_states(model.rnn) if started else None
    relevance = epsilon(Book(epsilon=value, memory=memory, bias="spread"))(model, x, target, hx=hx)
    logits = model(x, hx).gather(1, target[:, None])[:, 0].detach()
    torch.testing.assert_close(relevance.sum((1, 2)), logits, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("rule", "book"),
    [
        (ZPlus(), Book("z+")),
        (AlphaBeta(1.5, 0.5), Book("alpha-beta", alpha=1.5, beta=0.5)),
        (Gamma(0.25), Book("gamma", gamma=0.25)),
    ],
    ids=["z+", "alpha-beta", "gamma"],
)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN tanh"])
def test_positive_and_negative_contributions(kind, rule, book, shape, started):
    (x, target), model = data(), Reader(kind, "all steps", **SHAPES[shape])
    hx = start_states(model.rnn, zero_h=True) if started else None
    expected = by_the_book(model, x, target, book, hx)
    assert_equal(LRP(rule, start="logit")(model, x, target, hx=hx), expected)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_output(kind, read):
    if (read == "c_n" and kind != "LSTM") or (read == "mean" and kind == "GRU"):
        pytest.skip("there is none, or the sums over steps and over memory are one")
    (x, target), model, book = data(), Reader(kind, read, num_layers=2, bidirectional=True), Book(epsilon=1e-3)
    assert_equal(epsilon(book)(model, x, target), by_the_book(model, x, target, book))


def test_the_module_itself_is_the_model():
    """The target is a function of (output, (h_n, c_n))."""
    (x, _), rnn, book = data(), Reader("LSTM", num_layers=2).rnn, Book(epsilon=1e-3)
    for choose, place in (
        (lambda out: out[0][:, 3, 1], ("output", (3, 1))),
        (lambda out: out[1][0][0, :, 2], ("h_n", (0, 2))),
        (lambda out: out[1][1][1, :, 0], ("c_n", (1, 0))),
    ):
        expected = []
        for example in x.numpy():
            net = Network(rnn, example)
            seed = np.zeros_like(getattr(net, place[0]))
            seed[place[1]] = getattr(net, place[0])[place[1]]
            expected.append(net.relevance(book, **{place[0]: seed}))
        assert_equal(epsilon(book)(rnn, x, choose), torch.tensor(np.array(expected)))


@pytest.mark.parametrize("memory", ["merged", "per_step"])
@pytest.mark.parametrize("read", ["all steps", "h_n", "c_n"])
def test_projections(read, memory):
    """Against the book, whose projection is one matrix more: h_t = W_hr (o tanh(c_t))."""
    (x, target), book = data(), Book(epsilon=1e-3, memory=memory)
    model = Reader("LSTM", read, num_layers=2, bidirectional=True, proj_size=2)
    assert_equal(epsilon(book)(model, x, target), by_the_book(model, x, target, book))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_other_types(kind, dtype):
    """All weights and inputs positive: then no sum cancels, and errors are those of the type."""
    (x, target), model = data(), Reader(kind, num_layers=2, bidirectional=True)
    x = x.abs().to(dtype)
    for parameter in model.parameters():
        parameter.data = parameter.data.abs().mul(0.3).to(dtype).double()
    expected = by_the_book(model, x.double(), target, Book(epsilon=1e-3))
    logits = model(x.double())
    explanation = epsilon(Book(epsilon=1e-3)).explain(model.to(dtype), x, target)
    assert explanation.relevance.dtype == explanation.logits.dtype == dtype
    assert_equal(explanation.logits.double(), logits, 8 * torch.finfo(dtype).eps)
    assert_equal(explanation.relevance.double(), expected, 8 * torch.finfo(dtype).eps)
