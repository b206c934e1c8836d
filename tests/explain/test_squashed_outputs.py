"""What squashes an output is no part of what is explained: relevance is that of the logit."""

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from readers import assert_equal
from torch import nn
from two_layers import METHODS, Last, data, network

from rnnx_lightning.explain import LRP, Epsilon, UnexplainableError


def one_by_one(z):
    result = torch.empty_like(z)
    for k in range(z.shape[1]):
        result[:, k] = z[:, k].sigmoid()
    return result


SQUASHED = {
    "nn.Sigmoid": nn.Sigmoid(),
    "torch.sigmoid": torch.sigmoid,
    "F.logsigmoid": F.logsigmoid,
    "nn.Softmax": nn.Softmax(1),
    "tensor.softmax": lambda z: z.softmax(-1),
    "nn.LogSoftmax": nn.LogSoftmax(1),
    "softmax of float": lambda z: F.softmax(z, dim=1, dtype=torch.float64),
    "softmax, then flat": lambda z: torch.softmax(z, 1).flatten(1),
    "sigmoid_": lambda z: z.sigmoid_(),
    "sigmoid of each": lambda z: torch.stack([column.sigmoid() for column in z.unbind(1)], 1),
    "log of softmax": lambda z: torch.softmax(z, 1).log(),
    "exp": torch.exp,
    "minus its logsumexp": lambda z: z - z.logsumexp(1, keepdim=True),
    "minus its logsumexp, in place": lambda z: z.sub_(torch.logsumexp(z, 1)[:, None]),
    "minus its logsumexp, the other way": lambda z: -z.logsumexp(1, keepdim=True) + z,
    "a negated logsumexp, then the value": lambda z: torch.logsumexp(z, 1)[:, None].neg().add(z),
    "exp of that": lambda z: (-z.logsumexp(1, keepdim=True) + z).exp(),
    "exp of log-softmax": lambda z: F.log_softmax(z, 1).exp(),
    "exp of log-softmax, written out": lambda z: torch.exp(z - z.logsumexp(1, keepdim=True)),
    "softmax written out": lambda z: z.exp() / z.exp().sum(1, keepdim=True),
    "softmax written out without overflow": lambda z: (lambda e: e / e.sum(-1)[:, None])(
        torch.exp(z - z.max(1, keepdim=True)[0])
    ),
    "its logarithm": lambda z: (z.exp() / z.exp().sum(1, keepdim=True)).log(),
    "exp of log-sigmoid": lambda z: F.logsigmoid(z).exp(),
}


@pytest.mark.parametrize("squash", SQUASHED)
@pytest.mark.parametrize("name", [*METHODS])
@pytest.mark.filterwarnings("ignore")
def test_a_squashed_output_is_explained_as_its_logit(name, squash):
    model, (x, target), method = network(), data(), METHODS[name]()
    assert_equal(method(Last(model, SQUASHED[squash]), x, target), method(model, x, target))


def test_what_speaks_against_a_class_is_not_painted_as_speaking_for_it():
    """A binary classifier of one probability, (B, 1) or (B,): contributions -2, -1 and .5."""
    layer = nn.Linear(3, 1, bias=False).double()
    layer.weight.data[:] = torch.tensor([[-2.0, -1.0, 0.5]])
    x = torch.ones(2, 3, dtype=torch.float64)
    for model in (
        nn.Sequential(layer, nn.Sigmoid()),
        nn.Sequential(layer, nn.Sigmoid(), nn.Flatten(0)),
        nn.Sequential(layer, nn.Flatten(0), nn.Sigmoid()),
        nn.Sequential(layer, nn.Unflatten(1, (1, 1)), nn.Sigmoid(), nn.Flatten(1)),
    ):
        for target in (None, 0):
            relevance = LRP(Epsilon(0.0))(model, x, target)
            np.testing.assert_allclose(relevance, [[-2.0, -1.0, 0.5]] * 2, rtol=1e-10)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda z: torch.cat([z[:, :1].sigmoid(), z[:, 1:]], 1),
        lambda z: torch.stack([1 - z[:, 0].sigmoid(), z[:, 0].sigmoid()], 1),
        one_by_one,
        lambda z: z.exp() / (1 + z.exp().sum(1, keepdim=True)),
    ],
    ids=["beside logits", "p and 1 - p", "written one by one", "a softmax with one more class"],
)
def test_what_is_half_squashed_is_refused(mixed):
    (x, _), model = data(), network()
    with pytest.raises(UnexplainableError, match=r"sigmoid or softmax at its end|'exp'"):
        LRP(Epsilon())(Last(model, mixed), x, 1)


@pytest.mark.parametrize("factor", [2.0, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)])
def test_another_multiple_of_a_logsumexp_is_no_part_of_a_softmax(factor):
    (x, _), model = data(), network()
    explanation = LRP(Epsilon(0)).explain(Last(model, lambda z: z - factor * z.logsumexp(1, keepdim=True)), x, 1)
    z = model(x)
    expected = z - factor * z.logsumexp(1, keepdim=True)
    torch.testing.assert_close(explanation.explained, expected[:, 1])


class Output(OrderedDict):
    """As Hugging Face's: a dict whose entries are attributes, too."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)


@pytest.mark.parametrize("make", [Output, namedtuple("Pair", "scores, rest")], ids=["a dict", "a tuple"])
def test_an_output_with_names_keeps_them(make):
    (x, _), model = data(), network()
    named = Last(model, lambda z: make(scores=z.softmax(1), rest=z))
    method = LRP(Epsilon())
    assert_equal(method(named, x, lambda output: output.scores[:, 1]), method(model, x, 1))
    assert_equal(method(named, x, lambda output: output.rest[:, 1]), method(model, x, 1))
