"""An activation is explained alike whether torch has it or the network writes it out."""

import math

import pytest
import torch
import torch.nn.functional as F
from readers import assert_equal
from torch import nn
from two_layers import METHODS, data, network

from rnnx_lightning.explain import LRP, Composite, Epsilon, UnexplainableError

# Written out, and as torch has it.
ACTIVATIONS = {
    "GELU by tanh": (
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "GELU by tanh, cube as a product": (
        lambda x: x * (0.5 * (torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)) + 1)),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "GELU by erf": (lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), F.gelu),
    "squared ReLU": (lambda x: F.relu(x) * torch.relu(x), lambda x: F.relu(x) ** 2),
    "softsign": (lambda x: x / (1 + x.abs()), F.softsign),
    "one exponent a unit": (
        lambda x: F.relu(x) ** torch.linspace(1, 3, 7, dtype=x.dtype),
        lambda x: F.relu(x) ** 2,
    ),
}


class Between(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.model, self.activation = network(nn.Identity), activation

    def forward(self, x):
        first, _, last = self.model
        return last(self.activation(first(x)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_an_activation_written_out_is_the_activation(name, activation):
    written, known = ACTIVATIONS[activation]
    x, target = data()
    if activation == "one exponent a unit":  # at the values of the one, by hand
        with torch.no_grad():
            h = Between(known).model[0](x)
            scale = torch.where(h > 0, written(h) / known(h), 0)
        known = lambda x, known=known, scale=scale: known(x) * scale  # noqa: E731
    model, plain = Between(written), Between(known)
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))
    assert_equal(METHODS[name]()(model, x, target), METHODS[name]()(plain, x, target))


def by_moments(x):
    variance, mean = torch.var_mean(x, 1, correction=0)
    return (x - mean.unsqueeze(1)) * torch.rsqrt(variance[:, None] + 1e-5)


def by_squares(x):
    centre = x - x.mean(-1, keepdim=True).detach().expand_as(x)
    return centre / (centre.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def of_channels(x):
    x = x.unflatten(1, (7, 1))
    return ((x - x.mean((1, 2), keepdim=True)) / torch.sqrt(x.var((1, 2), False, True) + 1e-5)).flatten(1)


def in_place(x):
    y = x.clone()
    y.sub_(x.mean(1, keepdim=True))
    return y.div_((x.var(1, keepdim=True, correction=0) + 1e-5).sqrt())


def of_a_view(x):
    centre = x - x.view(len(x), 1, 7, 1).mean((1, 2, 3))[:, None]  # dimensions that x does not have
    return centre * torch.rsqrt(centre.square().mean(1, keepdim=True) + 1e-5)


def by_sums(x):
    centre = x - x.sum(-1, keepdim=True) / 7
    return centre / ((centre * centre).sum(-1, keepdim=True) / 7 + 1e-5).sqrt()


@pytest.mark.parametrize("written", [by_moments, by_squares, of_channels, in_place, of_a_view, by_sums])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_a_layer_norm_written_out_is_the_layer_norm(name, written):
    x, target = data()
    model, plain = Between(written), Between(lambda x: F.layer_norm(x, (7,)))
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))
    assert_equal(METHODS[name]()(model, x, target), METHODS[name]()(plain, x, target))


CENTRED = {
    "a negated mean added": lambda h: h + -h.mean(1, keepdim=True),
    "added to a negated mean": lambda h: -h.mean(1, keepdim=True) + h,
    "alpha": lambda h: torch.add(h, h.mean(1, keepdim=True), alpha=-1),
    "a sum times a number": lambda h: h + h.sum(1, keepdim=True) * (-1 / 7),
}


@pytest.mark.parametrize("spelling", CENTRED)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_centring_has_one_relevance(name, spelling):
    x, target = data()
    one, other = Between(CENTRED[spelling]), Between(lambda h: h - h.mean(1, keepdim=True))
    assert_equal(METHODS[name]()(one, x, target), METHODS[name]()(other, x, target))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_another_sum_of_a_value_is_no_mean(name):
    x, target = data()
    weights = torch.linspace(-0.5, 0.9, 7, dtype=x.dtype)[:, None]
    one, other = Between(lambda h: h - h @ weights), Between(lambda h: h + h @ -weights)
    assert_equal(METHODS[name]()(one, x, target), METHODS[name]()(other, x, target))


PRODUCTS = {
    "of two layers": lambda h: torch.tanh(h) * torch.tanh(h.flip(1)),
    "that is not 0 at 0": lambda h: (h + 1) * (torch.tanh(h) + 2),
    "of a unit with all": lambda h: h * torch.tanh(h.sum(1, keepdim=True)).expand_as(h),
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_other_products_are_refused(product):
    x, target = data()
    with pytest.raises(UnexplainableError, match="multiplies two signals"):
        LRP(Epsilon())(Between(PRODUCTS[product]), x, target)


def test_a_gate_as_exponent_gets_nothing():
    """The sharpened attention of a neural Turing machine, w^g / sum w^g, is attention."""
    x, target = data()
    sharp = {}

    def attend(h):
        weights = h.softmax(1) ** (1 + F.softplus(h[:, :1]))
        sharp["w"] = weights / (weights.sum(1, keepdim=True) + 1e-16)
        return sharp["w"] * h

    relevance = LRP(Epsilon(0.0))(Between(attend), x, target)
    constant = sharp["w"].detach()
    assert_equal(relevance, LRP(Epsilon(0.0))(Between(lambda h: constant * h), x, target))


def test_logsumexp_is_a_soft_maximum():
    x, target = data()
    steps = {}

    def pooled(h):
        parts = steps["h"] = torch.stack([h, h.flip(1), -h], 1)
        return torch.logsumexp(4 * parts, 1) / 4

    model = Between(pooled)
    relevance = LRP(Epsilon(0.0))(model, x, target)
    weight, bias = model.model[0].weight.detach(), model.model[0].bias.detach()
    h = x @ weight.T + bias
    parts, share = torch.stack([h, h.flip(1), -h], 1), torch.softmax(4 * torch.stack([h, h.flip(1), -h], 1), 1)
    above = model.model[2].weight.detach()[target] * (torch.logsumexp(4 * parts, 1) / 4)  # relevance of each unit
    at = share * above.unsqueeze(1)
    at = at[:, 0] + at[:, 1].flip(1) + at[:, 2]
    torch.testing.assert_close(relevance, (at / h) @ weight * x)


def test_weights_made_of_the_input():
    """A convolution whose weights are gates is attention; whose weights are signals, a product."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, dtype=torch.float64)

    class Dynamic(nn.Module):
        def __init__(self, squash):
            super().__init__()
            torch.manual_seed(1)
            self.value, self.make, self.out = nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 2)
            self.squash, self.constant = squash, None
            self.double()

        def forward(self, x):
            made = self.squash(self.make(x))
            weight = made.view(3, 1, 3) if self.constant is None else self.constant
            return self.out(F.conv1d(self.value(x), weight, padding=1, groups=3).sum(1))

    model, same = Dynamic(lambda w: w.softmax(-1)), Dynamic(lambda w: w)
    same.constant = model.make(x).softmax(-1).view(3, 1, 3).detach()
    torch.testing.assert_close(LRP(Epsilon(0.0))(model, x, 0), LRP(Epsilon(0.0))(same, x, 0))
    with pytest.raises(UnexplainableError, match="multiplies two signals"):
        LRP(Epsilon(0.0))(Dynamic(torch.tanh), x, 0)
    model = Dynamic(torch.tanh)
    by_value = LRP(Composite(Epsilon(0.0), products="left"))(model, x, 0)
    same.constant = torch.tanh(model.make(x)).view(3, 1, 3).detach()
    torch.testing.assert_close(by_value, LRP(Epsilon(0.0))(same, x, 0))
    spread = LRP(Composite(Epsilon(0.0), products="half", bias="spread"))(model, x, 0)
    torch.testing.assert_close(spread.sum(), model(x)[0, 0].detach())


def test_a_sum_of_gates_times_constants_is_a_signal():
    x, target = data()
    one, two = torch.linspace(-1, 1, 7, dtype=x.dtype), torch.linspace(1, 3, 7, dtype=x.dtype)
    model = Between(lambda h: torch.sigmoid(h) * one + torch.sigmoid(h.flip(1)) * two)
    relevance = LRP(Composite(Epsilon(0.0), bias="spread"))(model, x, target)
    torch.testing.assert_close(relevance.sum(1), model(x).detach().gather(1, target[:, None])[:, 0])


def test_a_quotient_of_gates_is_explained_where_one_is_told_to():
    x, target = data()
    model = Between(lambda h: torch.sigmoid(h) / torch.sigmoid(h.flip(1)))
    with pytest.raises(UnexplainableError, match="two gates"):
        LRP(Epsilon(0.0))(model, x, target)
    relevance = LRP(Composite(Epsilon(0.0), products="half", bias="spread"))(model, x, target)
    torch.testing.assert_close(relevance.sum(1), model(x).detach().gather(1, target[:, None])[:, 0])


OF_GATES = {  # of gates and of a constant in (0, 1), written in two ways
    "power": (lambda z, k: k**z, lambda z, k: torch.exp(z * k.log())),
    "power of a tensor of its size": (lambda z, k: k.expand_as(z) ** z, lambda z, k: torch.exp(z * k.log())),
    "product along a dimension": (
        lambda z, k: z.unflatten(1, (7, 1)).expand(-1, -1, 2).prod(2),
        lambda z, k: z * z.clone(),
    ),
    "product of all": (
        lambda z, k: torch.stack([row.prod() for row in z])[:, None],
        lambda z, k: z.cumprod(1)[:, -1:],
    ),
}


@pytest.mark.parametrize("function", OF_GATES)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_powers_and_products_of_gates_are_gates(name, function):
    x, target = data()
    constant = torch.linspace(0.2, 0.9, 7, dtype=x.dtype)
    one, other = (
        Between(lambda h, f=f: f(h.flip(1).sigmoid(), constant) * torch.tanh(h)) for f in OF_GATES[function]
    )
    assert_equal(METHODS[name]()(one, x, target), METHODS[name]()(other, x, target))
    for refused in (lambda h: constant ** h.sigmoid(), lambda h: h.sigmoid().prod(1, keepdim=True) + 0 * constant):
        with pytest.raises(UnexplainableError, match="as a signal"):
            METHODS[name]()(Between(refused), x, target)
    with pytest.raises(UnexplainableError, match="Only a product of gates"):
        METHODS[name]()(Between(lambda h: h * h.prod(1, keepdim=True)), x, target)


HARD_SIGMOIDS = {
    "ReLU6": lambda x: F.relu6(x + 3.0) / 6.0,
    "nn.ReLU6": lambda x: nn.ReLU6()(x + 3) / 6,
    "clamp of a scaled sum": lambda x: torch.clamp(x / 6 + 0.5, 0, 1),
    "clamp of a sum, scaled": lambda x: ((x + 3) / 6).clamp(min=0, max=1),
    "hardtanh": lambda x: F.hardtanh(3 + x, 0.0, 6.0).div(6),
    "two clamps": lambda x: (x + 3).clamp(min=0).clamp(max=6) / 6,
    "ReLU, then a limit": lambda x: torch.relu(x / 6 + 0.5).clamp_max(1),
}


@pytest.mark.parametrize("written", HARD_SIGMOIDS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_a_hard_sigmoid_written_out_is_a_gate(name, written):
    x, target = data()
    gate = HARD_SIGMOIDS[written]
    model, plain = (Between(lambda h, f=f: f(h.flip(1)) * torch.tanh(h)) for f in (gate, F.hardsigmoid))
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))
    assert_equal(METHODS[name]()(model, x, target), METHODS[name]()(plain, x, target))


def test_hard_swish_written_out_is_hard_swish():
    x, target = data()
    model, plain = Between(lambda h: h * F.relu6(h + 3) / 6), Between(F.hardswish)
    relevance = LRP(Epsilon(0.0))(model, x, target)
    assert_equal(relevance, LRP(Epsilon(0.0))(plain, x, target))


def test_other_clamps_are_activations():
    """Of products with them, one has to say which factor has the relevance."""
    x, target = data()
    for cut in (F.relu6, lambda x: F.relu6(x + 2), lambda x: torch.clamp(x + 0.5, -1, 1)):
        with pytest.raises(UnexplainableError, match="multiplies two signals"):
            LRP(Epsilon())(Between(lambda h, cut=cut: cut(h.flip(1)) * torch.tanh(h)), x, target)
