"""What is written in place equals its ordinary form, or is refused; it is never another relevance in silence."""

import pytest
import torch
import torch.nn.functional as F
from readers import assert_equal
from torch import nn
from two_layers import METHODS

from rnnx_lightning.explain import (
    LRP,
    Captum,
    Epsilon,
    GradientTimesInput,
    GuidedBackprop,
    InChunks,
    IntegratedGradients,
    Sensitivity,
    SmoothGrad,
    UnexplainableError,
    ZPlus,
)

# In place, and the ordinary form of the same.
ACTIVATIONS = {
    "relu_": (torch.relu_, torch.relu),
    "F.relu": (lambda z: F.relu(z, inplace=True), F.relu),
    "F.leaky_relu_": (lambda z: F.leaky_relu_(z, 0.1), lambda z: F.leaky_relu(z, 0.1)),
    "nn.LeakyReLU": (nn.LeakyReLU(0.1, inplace=True), nn.LeakyReLU(0.1)),
    "nn.ReLU6": (nn.ReLU6(inplace=True), nn.ReLU6()),
    "nn.ELU": (nn.ELU(inplace=True), nn.ELU()),
    "F.elu_": (F.elu_, F.elu),
    "nn.CELU": (nn.CELU(inplace=True), nn.CELU()),
    "nn.SELU": (nn.SELU(inplace=True), nn.SELU()),
    "nn.Hardtanh": (nn.Hardtanh(inplace=True), nn.Hardtanh()),
    "F.hardtanh_": (F.hardtanh_, F.hardtanh),
    "nn.SiLU": (nn.SiLU(inplace=True), nn.SiLU()),
    "nn.Mish": (nn.Mish(inplace=True), nn.Mish()),
    "nn.Hardswish": (nn.Hardswish(inplace=True), nn.Hardswish()),
    "nn.RReLU": (nn.RReLU(inplace=True).eval(), nn.RReLU().eval()),
    "nn.Threshold": (nn.Threshold(0.0, 0.0, inplace=True), nn.Threshold(0.0, 0.0)),
    "tanh_": (lambda z: z.tanh_(), torch.tanh),
    "clamp_": (lambda z: z.clamp_(min=0), lambda z: z.clamp(min=0)),
    "clamp_min_": (lambda z: z.clamp_min_(0), lambda z: z.clamp_min(0)),
    "masked_fill_": (lambda z: z.masked_fill_(z < 0, 0.0), lambda z: z.masked_fill(z < 0, 0.0)),
    "nn.Dropout": (nn.Dropout(0.5, inplace=True).eval(), nn.Identity()),
}
CHANGES = {
    "mul_": (lambda z: z.mul_(0.5), lambda z: z * 0.5),
    "neg_": (lambda z: z.neg_(), lambda z: -z),
    "add_ of itself": (lambda z: z.add_(z), lambda z: z + z),
    "div_": (lambda z: z.div_(2.0), lambda z: z / 2.0),
    "sub_": (lambda z: z.sub_(z.flip(1)), lambda z: z - z.flip(1)),
    "a slice of it": (lambda z: (F.relu_(z[:, :2]), z)[1], lambda z: torch.cat([z[:, :2].relu(), z[:, 2:]], 1)),
    "a row of a view": (lambda z: (z.view(-1, 2, 2)[:, 0].mul_(3.0), z)[1], lambda z: z * torch.tensor([3.0, 3.0, 1.0, 1.0]).to(z.dtype)),
}  # fmt: skip
FUNCTIONS = ACTIVATIONS | CHANGES

PLACES = {
    "plain": lambda f, a, b: b(f(a)),
    "statement": lambda f, a, b: (f(a), b(a))[1],
    # a pre-activation block: the skip reads what has been overwritten by then
    "pre-activation, overwritten": lambda f, a, b: a + b(f(a)),
    # the skip was taken before
    "pre-activation, kept": lambda f, a, b: a.clone() + b(f(a)),
    "pre-activation, scaled before": lambda f, a, b: 0.5 * a + b(f(a)),
    "read before by another layer": lambda f, a, b: b(a) + f(a),
    "read before by an activation": lambda f, a, b: torch.tanh(a) + b(f(a)),
    "a view that was made before": lambda f, a, b: (lambda view, _: b(view))(a.view(-1, 4), f(a)),
}
# What the ordinary form has to be where the value is read after it was overwritten.
ORDINARY = {
    "statement": lambda f, a, b: b(f(a)),
    "pre-activation, overwritten": lambda f, a, b: (lambda h: h + b(h))(f(a)),
    "a view that was made before": lambda f, a, b: b(f(a)),
}


class Block(nn.Module):
    def __init__(self, function, place):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second, self.out = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.function, self.place = function, place
        self.double()

    def forward(self, x):
        return self.out(self.place(self.function, self.first(x), self.second))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", ["epsilon 0", "z+"])
@pytest.mark.filterwarnings("ignore")
def test_in_place_equals_the_ordinary_form(name, function, place):
    in_place, ordinary = FUNCTIONS[function]
    model = Block(in_place, PLACES[place])
    plain = Block(ordinary, ORDINARY.get(place, PLACES[place]))
    x, method = torch.randn(4, 5, dtype=torch.float64), METHODS[name]()
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))
    target = plain(x).argmax(1)
    try:
        expected = method(plain, x, target)
    except UnexplainableError:
        with pytest.raises(UnexplainableError):
            method(model, x, target)
        return
    try:
        relevance = method(model, x, target)
    except UnexplainableError as refusal:
        if function in ACTIVATIONS and place in ("plain", "pre-activation, overwritten"):
            raise
        pytest.skip(f"refused: {refusal}")
    assert_equal(relevance, expected)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_leaky_relu_in_place_gets_what_it_had(name):
    """Contributions -.1 and .3 were once explained as [-1, 3]."""
    model = nn.Sequential(
        nn.Linear(2, 1, bias=False), nn.LeakyReLU(0.1, inplace=True), nn.Linear(1, 1, bias=False)
    )
    model[0].weight.data[:] = torch.tensor([[1.0, -3.0]])
    model[2].weight.data.fill_(-1.0)
    x, plain = torch.ones(1, 2), nn.Sequential(model[0], nn.LeakyReLU(0.1), model[2])
    relevance = METHODS[name]()(model, x, 0)
    assert_equal(relevance, METHODS[name]()(plain, x, 0), 1e-6)
    if name == "epsilon 0":
        torch.testing.assert_close(relevance, torch.tensor([[-0.1, 0.3]]))


@pytest.mark.parametrize("name", ["epsilon 0", "z+", "deep Taylor"])
def test_the_input_is_not_overwritten(name):
    layer = nn.Linear(5, 3)
    layer.bias.data += 3  # all logits are positive: there is something to explain

    class Overwrites(nn.Module):
        def forward(self, x):
            return layer(F.relu(x, inplace=True))

    x = torch.randn(4, 5)
    kept = x.clone()
    try:
        relevance = METHODS[name]()(Overwrites(), x, 0)
    except UnexplainableError:
        relevance = None
    assert torch.equal(x, kept)
    if relevance is not None:
        assert_equal(relevance, METHODS[name]()(nn.Sequential(nn.ReLU(), layer), x, 0), 1e-5)


class Overwriting(nn.Module):
    """Normalises its input in place, by a deviation that is computed from what is overwritten."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.out, self.in_place = nn.Linear(5, 4).double(), nn.Linear(4, 3).double(), in_place

    def forward(self, x):
        if self.in_place:
            x -= x.mean(1, keepdim=True)
            x /= torch.sqrt(x.var(1, keepdim=True) + 1e-5)
        else:
            x = x - x.mean(1, keepdim=True)
            x = x / torch.sqrt(x.var(1, keepdim=True) + 1e-5)
        return self.out(torch.relu(self.layer(x)))


GRADIENTS = {
    "sensitivity": Sensitivity,
    "gradient x input, gates constant": lambda: GradientTimesInput(gates="constant"),
    "guided": GuidedBackprop,
    "gradient x input": GradientTimesInput,
    "integrated": IntegratedGradients,
    "mean over noise": SmoothGrad,
    "in chunks": lambda: InChunks(GradientTimesInput(), examples=2),
    "captum": lambda: Captum("InputXGradient"),
}


@pytest.mark.parametrize("target", [None, torch.tensor([0, 1, 2, 1])], ids=["largest", "given"])
@pytest.mark.parametrize("name", METHODS | GRADIENTS)
@pytest.mark.filterwarnings("ignore")
def test_the_input_may_be_overwritten(name, target):
    """Also by the passes that only find the largest logit."""
    method, x = (METHODS | GRADIENTS)[name](), torch.randn(4, 5, dtype=torch.float64)
    kept = x.clone()
    relevance = method(Overwriting(True), x, target)
    assert torch.equal(x, kept)
    assert_equal(relevance, method(Overwriting(False), x, target))


class OverwritingBeside(nn.Module):
    """Tokens, and numbers that it normalises."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.vectors, self.rest = nn.Embedding(7, 5).double(), Overwriting(in_place)

    def forward(self, tokens, x):
        return self.rest(x) * self.rest(self.vectors(tokens).sum(1))


@pytest.mark.parametrize("target", [None, 1], ids=["largest", "given"])
@pytest.mark.parametrize(
    "method", [Sensitivity(), InChunks(Sensitivity(), examples=2)], ids=["at once", "in chunks"]
)
def test_an_input_beside_tokens_may_be_overwritten(method, target):
    tokens, x = torch.randint(7, (4, 3)), torch.randn(4, 5, dtype=torch.float64)
    kept = x.clone()
    relevance = method(OverwritingBeside(True), {"tokens": tokens, "x": x}, target)
    assert torch.equal(x, kept)
    expected = method(OverwritingBeside(False), {"tokens": tokens, "x": x}, target)
    for name, part in relevance.items():
        assert_equal(part, expected[name])


def test_a_graph_of_what_is_overwritten_is_refused():
    with pytest.raises(UnexplainableError, match="Write x = x / s"):
        Sensitivity(create_graph=True)(Overwriting(True), torch.randn(4, 5, dtype=torch.float64), 0)


def set_data(tensor, value):
    tensor.data = value
    return tensor


class OfParts(nn.Module):
    def __init__(self, part):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.out, self.part = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2), part
        self.double()

    def forward(self, x):
        return self.out(self.part(self.first(x), self.second(x)))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (lambda a, b: set_data(a, a.data.relu()), lambda a, b: a.relu()),
        (lambda a, b: set_data(a, b.tanh()), lambda a, b: b.tanh()),
        (lambda a, b: set_data(torch.empty_like(a), a * 2) + b, lambda a, b: a * 2 + b),
        (lambda a, b: set_data(a, torch.ones(3, 4).double()) + b, lambda a, b: torch.ones(3, 4).double() + b),
    ],
    ids=["by its ReLU", "by another value", "of a new tensor", "by a constant"],
)
@pytest.mark.parametrize("method", [LRP(Epsilon(1e-3)), LRP(ZPlus(), start="logit")])
def test_data_that_are_replaced(method, part, expected):
    x = torch.randn(3, 4, dtype=torch.float64)
    assert_equal(method(OfParts(part), x, 1), method(OfParts(expected), x, 1), 1e-10)
