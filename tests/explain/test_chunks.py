"""Some examples at a time: inputs and arguments of any structure."""

from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from rnnx_lightning.explain import LRP, DeepTaylor, Epsilon, InChunks, Sensitivity

METHODS = {"epsilon": LRP(Epsilon(1e-3)), "SA": Sensitivity()}
B, T = 5, 4


class Reader(nn.Module):
    """Logits from a masked sum over what an LSTM gives."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.out = nn.LSTM(3, 6, 2, batch_first=True).double(), nn.Linear(6, 2).double()

    def forward(self, x, hx=None, lengths=None, mask=None):
        output = self.rnn(x, hx)[0]
        if lengths is not None:
            steps = torch.arange(x.shape[1])
            output = output * (steps < torch.as_tensor(lengths)[:, None])[..., None]
        if mask is not None:
            output = output * mask[..., None]
        return self.out(output.sum(1))


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(B, T, 3, dtype=torch.float64)


ARGUMENTS = {
    "lengths": {"lengths": torch.tensor([4, 3, 2, 4, 1])},
    "a list": {"lengths": [4, 3, 2, 4, 1]},
    "a start state": {"hx": (torch.ones(2, B, 6).double(), torch.arange(60.0).double().view(2, B, 6) / 60)},
    "a mask of examples": {"mask": torch.rand(B, T).double()},
    "a mask of time steps": {"mask": torch.rand(T).double()},
}


@pytest.mark.parametrize("examples", [1, 2, 7])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments(arguments, method, examples, x):
    given, target = ARGUMENTS[arguments], [0, 1, 1, 0, 1]
    expected = METHODS[method](Reader(), x, target, **given)
    torch.testing.assert_close(InChunks(METHODS[method], examples)(Reader(), x, target, **given), expected)


class Steps(Reader):
    """A logit for each class and time step."""

    def forward(self, x):
        return self.out(self.rnn(x)[0]).mT


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "target", [([0, 1, 1, 0, 1], 3), (1, torch.tensor([3, 0, 2, 1, 1])), (0, -1), ([1], torch.tensor([2]))]
)
def test_indices(target, method, x):
    expected = METHODS[method](Steps(), x, target)
    torch.testing.assert_close(InChunks(METHODS[method], 2)(Steps(), x, target), expected)


@pytest.mark.parametrize("target", [[0, 1, 0, 1], torch.zeros(7, dtype=torch.long)])
def test_targets_of_another_length_are_refused_as_without_chunks(target, x):
    for method in (Sensitivity(), InChunks(Sensitivity(), 2)):
        with pytest.raises(ValueError, match=r"\(B,\) = \(5,\) classes, got \([47],\)"):
            method(Reader(), x, target)


def test_targets_as_an_array(x):
    target = np.array([0, 1, 1, 0, 1])
    expected = Sensitivity()(Reader(), x, target)
    torch.testing.assert_close(InChunks(Sensitivity(), 2)(Reader(), x, target), expected)


def test_no_examples(x):
    assert InChunks(Sensitivity(), 2)(Reader(), x[:0], 1).shape == (0, T, 3)


class Sum(nn.Module):
    """Reads two inputs."""

    def __init__(self):
        super().__init__()
        self.one, self.two = Reader(), Reader()

    def forward(self, one, two):
        return self.one(one) * 2 + self.two(two)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [tuple, list, dict, UserDict])
def test_structures(kind, method, x):
    named = {"one": x, "two": x.flip(0)}
    inputs = kind(named) if kind in (dict, UserDict) else kind(named.values())
    expected = METHODS[method](Sum(), inputs)
    relevance = InChunks(METHODS[method], 2)(Sum(), inputs)
    for one, other in zip(named if kind in (dict, UserDict) else (0, 1), expected, strict=True):
        torch.testing.assert_close(relevance[one], expected[other] if kind in (dict, UserDict) else other)


class ReadsPacked(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = Reader().rnn, Reader().out

    def forward(self, packed):
        return self.out(self.rnn(packed)[1][0][-1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ordered", [False, True])
def test_packed_sequences(ordered, method, x):
    lengths = [4, 3, 3, 2, 1] if ordered else [2, 4, 1, 3, 3]
    packed = pack_sequence([x[n, :length] for n, length in enumerate(lengths)], enforce_sorted=ordered)
    expected = METHODS[method](ReadsPacked(), packed, 1)
    relevance = InChunks(METHODS[method], 2)(ReadsPacked(), packed, 1)
    for one, other in zip(unpack_sequence(relevance), unpack_sequence(expected), strict=True):
        torch.testing.assert_close(one, other)


def test_what_does_not_hold_examples_is_not_cut_in_silence():
    class Attends(nn.Module):
        def forward(self, x, mask):
            return (x @ x.mT).masked_fill(mask, -9.0).softmax(-1).sum(1)[:, :2]

    x, mask = torch.rand(T, T, 3), torch.ones(T, T).triu(1).bool()
    with pytest.raises(ValueError, match="the batch cannot be divided"):
        InChunks(Sensitivity(), 1)(Attends().eval(), x, 0, mask=mask)
    wide = torch.rand(T + 1, T, 3)
    torch.testing.assert_close(
        InChunks(Sensitivity(), 1)(Attends().eval(), wide, 0, mask=mask),
        Sensitivity()(Attends().eval(), wide, 0, mask=mask),
    )


def test_bounds_from_the_data_are_those_of_the_whole_batch(x):
    scales = torch.arange(1.0, B + 1, dtype=torch.float64)[:, None, None]
    method = DeepTaylor("data", "data")
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * T, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)
    ).double()
    expected = LRP(method.composite, start="logit")(model, x * scales, 1)
    relevance = InChunks(LRP(method.composite, start="logit"), 2)(model, x * scales, 1)
    torch.testing.assert_close(relevance, expected)
