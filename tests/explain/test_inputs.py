"""What people hand to a method: containers of any kind, packed sequences in them, subclasses of tensors."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence
from torchvision.tv_tensors import Image

from rnnx_lightning.explain import (
    LRP,
    DeepTaylor,
    Epsilon,
    Gamma,
    GuidedBackprop,
    InChunks,
    Sensitivity,
)

METHODS = {"epsilon": LRP(Epsilon()), "SA": Sensitivity(), "GB": GuidedBackprop()}


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.out = nn.Linear(3, 4), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, left, right):
        return self.out(torch.relu(self.one(left) + self.two(right)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Pair, UserDict])
def test_containers(kind, method):
    left, right = torch.rand(2, 3), torch.rand(2, 5)
    expected = METHODS[method](TwoInputs(), (left, right), 1)
    if kind is Pair:
        relevance = METHODS[method](TwoInputs(), Pair(left, right), 1)
        assert isinstance(relevance, Pair)
    else:
        found = METHODS[method](TwoInputs(), UserDict(left=left, right=right), 1)
        relevance = found["left"], found["right"]
    for one, other in zip(relevance, expected, strict=True):
        assert torch.equal(one, other)


@dataclass(frozen=True, slots=True)
class Fields:
    left: Tensor
    right: Any
    name: str = "no tensor"


class Attributes(OrderedDict):
    """A dict whose items are attributes, too, as the outputs of Hugging Face's networks are."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for key, value in self.items():
            setattr(self, key, value)


class OneArgument(TwoInputs):
    """The two inputs are attributes of one argument, and the output is in another container."""

    def __init__(self, wrap=lambda y: y):
        super().__init__()
        self.wrap = wrap

    def forward(self, given):
        return self.wrap(super().forward(given.left, given.right))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Pair, Fields, Attributes])
def test_containers_in_containers(kind, method):
    left, right = torch.rand(2, 3), torch.rand(2, 5)
    explain, x = METHODS[method], (kind(left=left, right=right),)
    expected = METHODS[method](TwoInputs(), (left, right), 1)
    for relevance in (explain(OneArgument(), x, 1), InChunks(explain, examples=1)(OneArgument(), x, 1)):
        (found,) = relevance
        assert isinstance(found, kind)
        torch.testing.assert_close((found.left, found.right), expected)
    assert x[0].left is left


OUTPUTS = {
    "dataclass": lambda y: Fields(y, None),
    "attributes": lambda y: Attributes(left=y, right=None),
    "mapping": lambda y: MappingProxyType({"left": y}),
    "dict with logits": lambda y: {"loss": None, "logits": y},
    "nested": lambda y: ({"left": [y]}, 7),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_in_containers(kind, method):
    x = (Pair(torch.rand(2, 3), torch.rand(2, 5)),)
    expected = METHODS[method](OneArgument(), x, 1)
    torch.testing.assert_close(METHODS[method](OneArgument(OUTPUTS[kind]), x, 1), expected)
    if method == "epsilon":  # a softmax at the output is skipped
        relevance = METHODS[method](OneArgument(lambda y: OUTPUTS[kind](y.softmax(1))), x, 1)
        torch.testing.assert_close(relevance, expected)


class TwoSequences(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.out = nn.GRU(3, 4), nn.LSTM(2, 4), nn.Linear(4, 2)
        self.double()

    def forward(self, one, two):
        return self.out(self.one(one["packed"])[1][-1] + self.two(two)[1][0][-1])


@pytest.mark.parametrize("method", METHODS)
def test_several_packed_sequences_in_containers(method):
    """Each example is explained as it is alone."""
    torch.manual_seed(1)
    ones = [torch.randn(length, 3).double() for length in (4, 2, 5)]
    twos = [torch.randn(length, 2).double() for length in (1, 6, 3)]

    def packed(start, stop):
        one, two = (pack_sequence(each[start:stop], enforce_sorted=False) for each in (ones, twos))
        return {"one": {"packed": one}, "two": two}

    def sequences(relevance):
        return unpack_sequence(relevance["one"]["packed"]), unpack_sequence(relevance["two"])

    model, explain = TwoSequences(), METHODS[method]
    alone = [sequences(explain(model, packed(n, n + 1), 1)) for n in range(3)]
    for relevance in (explain(model, packed(0, 3), 1), InChunks(explain, examples=2)(model, packed(0, 3), 1)):
        one, two = sequences(relevance)
        for n in range(3):
            torch.testing.assert_close((one[n], two[n]), (alone[n][0][0], alone[n][1][0]), rtol=1e-10, atol=1e-14)


class Noted(Tensor):
    """As other packages have them, with notes on the data."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "wrap", [Image, nn.Parameter, lambda x: x.as_subclass(Noted)], ids=["Image", "Parameter", "Noted"]
)
def test_subclasses_of_tensors(wrap, method):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    x = torch.rand(2, 1, 6, 6)
    relevance = METHODS[method](model, wrap(x), 1)
    assert type(relevance) is Tensor
    assert torch.equal(relevance, METHODS[method](model, x, 1))


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.read, self.out = nn.Linear(3, 8), nn.Linear(8, 2)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.out(self.layer(self.read(x)).mean(1))


@pytest.mark.parametrize(
    "method", [DeepTaylor("data", "data"), DeepTaylor(1, 2), LRP(alpha=2, beta=1), *METHODS.values()]
)
def test_a_batch_of_no_examples(method):
    for model, shape in (
        (Attends(), (0, 4, 3)),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()), (0, 1, 4, 4)),
    ):
        assert method(model.eval(), torch.zeros(shape), 1).shape == shape


def test_values_are_needed():
    with pytest.raises(ValueError, match="'meta', where tensors have no values"):
        Sensitivity()(Attends().to("meta"), torch.zeros(2, 4, 3, device="meta"), 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("rule", [Epsilon(1e-9), Epsilon(1e-3), Gamma(0.25)])
def test_half_precision(rule, create_graph, dtype):
    """Up to rounding, what the same network gives in double precision."""
    torch.manual_seed(3)
    model, x = Attends().eval().to(dtype), torch.randn(3, 4, 3).to(dtype)
    relevance = LRP(rule, start="logit", create_graph=create_graph)(model, x, 1)
    assert relevance.dtype == dtype
    expected = LRP(rule, start="logit")(model.double(), x.double(), 1)
    error = (relevance.detach().double() - expected).norm() / expected.norm()
    assert error < 20 * torch.finfo(dtype).eps


def test_an_epsilon_that_rounds_to_zero():
    """Units without contributions get nothing."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)).half()
    model[0].weight.data[:2] = 0
    x = torch.ones(2, 3, dtype=torch.float16)
    relevance = LRP(Epsilon(1e-9), start="logit")(model, x, 1)
    torch.testing.assert_close(relevance, LRP(Epsilon(0), start="logit")(model, x, 1))
    assert bool(relevance.isfinite().all())
