"""Packed, padded, unbatched, time-major, dropped-out and step by step: the same relevance as the plain form."""

import copy

import pytest
import torch
import torch.nn.functional as F
from readers import CLASSES, INPUTS, KINDS, STEPS, UNITS, Reader, assert_equal, by_the_book, data, epsilon
from shares import Book
from torch import nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    unpack_sequence,
)

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, DeepTaylor, Epsilon, Gamma, GradientTimesInput, ZPlus

BOOK = Book(epsilon=1e-3)
METHODS = {
    "epsilon": lambda: epsilon(BOOK),
    "z+": lambda: LRP(ZPlus()),
    "alpha-beta": lambda: LRP(AlphaBeta(1.5, 0.5)),
    "gamma": lambda: LRP(Gamma(0.25)),
    "deep Taylor": lambda: DeepTaylor(-5, 5),
    "gradient x input": GradientTimesInput,
    "with a graph": lambda: LRP(Epsilon(1e-3), create_graph=True),
    "closed": lambda: LRP(Composite(AlphaBeta(1.5, 0.5), sums="closed")),
    "closed, with a graph": lambda: LRP(Composite(Gamma(0.25), sums="closed", bias="spread"), create_graph=True),
}
LENGTHS = [4, 7, 1, 5]


class Form(nn.Module):
    def __init__(self, reader, forward):
        super().__init__()
        self.reader, self.function = reader, forward

    def forward(self, x, **arguments):
        return self.function(self.reader, x, **arguments)


def final(reader, x):
    """Logits of the last layer's final states, which do not depend on padding."""
    state = reader.rnn(x)[1]
    h_n = state[0] if isinstance(state, tuple) else state
    return reader.out(h_n[-2:].transpose(0, 1).flatten(1))


def padded(reader, x, lengths):
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return final(reader, packed)


def averaged(reader, x):
    """The mean of all outputs over time, unpacked and masked."""
    output, lengths = pad_packed_sequence(reader.rnn(x)[0], batch_first=True)
    mask = (torch.arange(output.shape[1]) < lengths[:, None])[..., None]
    return reader.out((output * mask).sum(1) / lengths[:, None])


def two_layers(kind):
    return Reader(kind, num_layers=2, bidirectional=True)  # its output layer reads 2 * UNITS features


def sequences():
    torch.manual_seed(5)
    return [torch.randn(length, INPUTS, dtype=torch.float64) for length in LENGTHS]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("read", [final, averaged], ids=["h_n", "masked mean"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN tanh"])
def test_packed_examples_equal_themselves_alone(kind, read, method):
    model, xs, explain = Form(two_layers(kind), read), sequences(), METHODS[method]()
    relevance = explain(model, pack_sequence(xs, enforce_sorted=False))
    assert isinstance(relevance, PackedSequence)
    for own, x in zip(unpack_sequence(relevance), xs, strict=True):
        alone = explain(model, pack_sequence([x]))
        assert_equal(own[None], unpack_sequence(alone)[0][None])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_padding_gets_nothing(kind, method):
    reader, xs, explain = two_layers(kind), sequences(), METHODS[method]()
    x = nn.utils.rnn.pad_sequence(xs, batch_first=True, padding_value=0.7)
    relevance = explain(Form(reader, padded), x, lengths=torch.tensor(LENGTHS))
    for b, length in enumerate(LENGTHS):
        assert (relevance[b, length:] == 0).all()
        assert_equal(relevance[b : b + 1, :length], explain(Form(reader, final), xs[b][None]))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_the_book(kind):
    reader, xs = two_layers(kind), sequences()
    reader.read = "h_n"
    reader.out = nn.Linear(4 * UNITS, CLASSES).double()
    packed = pack_sequence(xs, enforce_sorted=False)
    states = lambda s: (s[0] if isinstance(s, tuple) else s).transpose(0, 1).flatten(1)  # noqa: E731
    relevance = epsilon(BOOK)(Form(reader, lambda m, x: m.out(states(m.rnn(x)[1]))), packed, [0, 2, 1, 0])
    for own, x, target in zip(unpack_sequence(relevance), xs, (0, 2, 1, 0), strict=True):
        assert_equal(own[None], by_the_book(reader, x[None], [target], BOOK))


def time_major(reader, x):
    rnn = copy.copy(reader.rnn)
    rnn.batch_first = False
    return reader.out(rnn(x.transpose(0, 1))[0][-1])


def unbatched(reader, x):
    return torch.stack([reader.out(reader.rnn(example)[0][-1]) for example in x.unbind(0)])


FORMS = {"time-major": time_major, "unbatched": unbatched}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_layouts(kind, form):
    (x, target), reader = data(), two_layers(kind)
    relevance = epsilon(BOOK)(Form(reader, FORMS[form]), x, target)
    assert_equal(relevance, by_the_book(reader, x, target, BOOK))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_in_eval_mode_is_none(kind):
    (x, target), reader = data(), Reader(kind, num_layers=3, dropout=0.5).eval()
    assert_equal(epsilon(BOOK)(reader, x, target), by_the_book(reader, x, target, BOOK))


class OutOfSight(nn.Module):
    """A Reader that is no submodule: it is kept in a plain list."""

    def __init__(self, reader):
        super().__init__()
        self.readers = [reader]

    def forward(self, x):
        return self.readers[0](x)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_in_a_plain_list(kind, create_graph):
    (x, target), reader = data(), two_layers(kind)
    explain = epsilon(BOOK)
    explain.create_graph = create_graph
    assert_equal(explain(OutOfSight(reader), x, target), by_the_book(reader, x, target, BOOK))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_in_a_plain_list(kind):
    (x, target), reader = data(), Reader(kind)
    hidden = OutOfSight(Cells(reader, started=False))
    assert_equal(LRP(Epsilon(1e-3))(hidden, x, target), by_the_book(reader, x, target, BOOK))


class Written(nn.Module):
    """One layer of a Reader, written out with F.linear, sigmoid and tanh, started from zeros of the input's type."""

    def __init__(self, reader):
        super().__init__()
        self.rnn, self.out, self.mode = reader.rnn, reader.out, reader.rnn.mode

    def forward(self, x):
        rnn = self.rnn
        h = c = x.new_zeros(len(x), UNITS)
        for step in x.unbind(1):
            from_x, from_h = (
                F.linear(step, rnn.weight_ih_l0, rnn.bias_ih_l0),
                F.linear(h, rnn.weight_hh_l0, rnn.bias_hh_l0),
            )
            if self.mode == "LSTM":
                i, f, g, o = (from_x + from_h).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            elif self.mode == "GRU":
                (r, z, n), (r_h, z_h, n_h) = from_x.chunk(3, 1), from_h.chunk(3, 1)
                z = torch.sigmoid(z + z_h)
                h = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * h
            else:
                h = torch.tanh(from_x + from_h) if self.mode == "RNN_TANH" else torch.relu(from_x + from_h)
        return self.out(h)


class Cells(nn.Module):
    """The same by nn.LSTMCell and the like, with or without a start state."""

    def __init__(self, reader, started):
        super().__init__()
        self.out, self.started = reader.out, started
        relu = {"nonlinearity": "relu"} if reader.rnn.mode == "RNN_RELU" else {}
        kind = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell}.get(reader.rnn.mode, nn.RNNCell)
        self.cell = kind(INPUTS, UNITS, **relu, dtype=torch.float64)
        self.cell.load_state_dict({name.removesuffix("_l0"): w for name, w in reader.rnn.state_dict().items()})

    def forward(self, x):
        zeros = x.new_zeros(len(x), UNITS)
        state = None if not self.started else (zeros, zeros) if isinstance(self.cell, nn.LSTMCell) else zeros
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.out(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_cells_and_cells_written_out(kind, method):
    """Fused, by nn.*Cell from nothing and from zeros, and written out: one relevance."""
    (x, _), reader, explain = data(), Reader(kind), METHODS[method]()
    if method == "deep Taylor":  # how much of two constants a pixel rule without bias counts is no matter of form
        for name, parameter in reader.rnn.named_parameters():
            parameter.data *= "bias" not in name
    target = reader(x).argmax(1)
    expected = explain(reader, x, target)
    assert expected.shape == (len(x), STEPS, INPUTS)
    for model in (Cells(reader, started=False), Cells(reader, started=True), Written(reader)):
        torch.testing.assert_close(model(x), reader(x), rtol=1e-12, atol=1e-14)
        assert_equal(explain(model, x, target), expected)


@pytest.mark.parametrize("kind", ["LSTM", "RNN tanh", "RNN relu"])
def test_written_out_equals_the_book(kind):
    (x, target), reader = data(), Reader(kind)
    target = reader(x).argmax(1)
    assert_equal(LRP(Epsilon(1e-3))(Written(reader), x, target), by_the_book(reader, x, target, BOOK))
