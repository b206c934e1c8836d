"""Networks as people have them: explained right, or refused, by an oracle for each method."""

import functools
import warnings

import pytest
import torch
import zennit.canonizers
import zennit.core
import zennit.layer
import zennit.rules
import zennit.torchvision
import zennit.types
from catalogue import BATCH, CATALOGUE, called, explained, precision, single, tensors
from linearised import Guided, Linearised, Plain, by_autograd
from torch import nn
from zennit.attribution import Gradient

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    Epsilon,
    Gamma,
    GuidedBackprop,
    UnexplainableError,
    ZBox,
    ZPlus,
)

pytestmark = pytest.mark.filterwarnings("ignore")
RULES = {"z+": ZPlus(), "epsilon": Epsilon(1e-12), "alpha-beta": AlphaBeta(2, 1), "gamma": Gamma(0.25)}
METHODS = [*RULES, "deep Taylor", "guided backprop"]


def method(name, options):
    """One of the table's methods, with what a network's composite has to be told."""
    if name == "guided backprop":
        return GuidedBackprop()
    if name == "deep Taylor":
        return LRP(Composite(ZPlus(), pixels=ZBox(-6, 6), **options))
    return LRP(Composite(RULES[name], **options))


@functools.lru_cache(maxsize=1)  # the tests of one network follow each other
def made(name):
    return CATALOGUE[name].make()


@pytest.fixture(autouse=True)
def _double():
    with precision(torch.float64):
        yield


def close(ours, expected, tolerance=1e-4):
    """Equal to within a part of the greatest entry; LRP-0 divides by sums that may nearly cancel."""
    scale = max(float(part.abs().max()) for part in expected)
    assert scale > 0
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale)


def totals(relevance):
    """The relevance of each example in all parts of an input."""
    return sum(torch.stack([row.sum() for row in part]) for part in rows(relevance))


def rows(relevance):
    """Parts, each with one entry an example."""
    if isinstance(relevance, torch.nn.utils.rnn.PackedSequence):
        return [tensors(relevance)]
    return tensors(relevance)


@pytest.mark.parametrize("how", METHODS)
@pytest.mark.parametrize("name", CATALOGUE)
def test_a_network_is_explained_right_or_refused(name, how):
    network = CATALOGUE[name]
    model, x, arguments = made(name)
    before = called(model, x, arguments)
    attributor = method(how, network.options)
    if network.refused is not None and how != "guided backprop":
        with pytest.raises(UnexplainableError, match=network.refused):
            attributor(model, x, network.target, **arguments)
        return
    relevance = attributor(model, x, network.target, **arguments)

    parts = tensors(relevance)
    assert [part.shape for part in parts] == [part.shape for part in tensors(x)]
    assert all(bool(part.isfinite().all()) for part in parts)
    if how not in ("z+", "deep Taylor"):  # these lose what reaches a unit without positive contributions
        assert all(bool((row != 0).any()) for row in rows(relevance)[0])
    after = called(model, x, arguments)
    torch.testing.assert_close(explained(after, network.target), explained(before, network.target), rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())

    middle = BATCH // 2
    alone = attributor(model, single(x, middle), network.target, **single(arguments, middle))
    rest = [part[middle] for part in rows(relevance)]
    for one, other in zip((part[0] for part in rows(alone)), rest, strict=True):
        same = other[tuple(slice(0, n) for n in one.shape)]
        torch.testing.assert_close(one, same, rtol=1e-5, atol=1e-6 * float(other.abs().max()) + 1e-9)

    if how in ("z+", "deep Taylor"):
        number = explained_before_squash(network, model, x, arguments)
        assert all(float(part.min()) >= -1e-9 * float(number.max()) for part in parts)
        assert bool((totals(relevance) <= number * (1 + 1e-6) + 1e-9).all())
    if how == "epsilon":
        expected, _ = oracle(Linearised, network, model, x, arguments, lambda gradient, leaf: gradient * leaf)
        close(parts, expected)
    if how == "guided backprop":
        expected, _ = oracle(Guided, network, model, x, arguments, lambda gradient, leaf: gradient.square())
        close(parts, expected, 1e-9)


def oracle(mode, network, model, x, arguments, combine):
    relevance, number = by_autograd(mode, network, model, x, arguments, called, explained, combine)
    if isinstance(x, torch.nn.utils.rnn.PackedSequence):
        relevance = tensors(x._replace(data=relevance[0]))
    return relevance, number


def explained_before_squash(network, model, x, arguments):
    return oracle(Linearised, network, model, x, arguments, lambda gradient, leaf: gradient)[1]


@pytest.mark.parametrize("name", [name for name, network in CATALOGUE.items() if network.piecewise])
def test_the_oracle_of_piecewise_linear_networks_is_the_plain_gradient(name):
    model, x, arguments = made(name)
    one, _ = oracle(Linearised, CATALOGUE[name], model, x, arguments, lambda gradient, leaf: gradient * leaf)
    other, _ = oracle(Plain, CATALOGUE[name], model, x, arguments, lambda gradient, leaf: gradient * leaf)
    close(one, other, 1e-9)


@pytest.mark.parametrize("rule", [Epsilon(1e-2), Gamma(0.25), AlphaBeta(2, 1)], ids=["epsilon", "gamma", "alpha-beta"])
@pytest.mark.parametrize("name", [n for n, network in CATALOGUE.items() if not network.constant and not network.refused])
def test_relevance_adds_up_to_the_logit_where_biases_are_spread(name, rule):
    network = CATALOGUE[name]
    model, x, arguments = made(name)
    number = explained_before_squash(network, model, x, arguments)
    relevance = LRP(Composite(rule, bias="spread", **network.options))(model, x, network.target, **arguments)
    torch.testing.assert_close(totals(relevance), number, rtol=1e-6, atol=1e-9)


# -- zennit, with its canonizers, on what is made of modules

ZENNIT = [name for name, network in CATALOGUE.items() if network.zennit]


class Residual(zennit.canonizers.AttributeCanonizer):
    """Sums of the residual blocks that zennit has no canonizer for become modules."""

    def __init__(self, shortcut, body, relu):
        def attributes(name, module):
            if not (hasattr(module, body) and module_name(module) in RESIDUAL):
                return None
            return {"canonizer_sum": zennit.layer.Sum(), "forward": forward.__get__(module)}

        def forward(self, x):
            seen = getattr(self, body)(x)
            skip = getattr(self, shortcut, None)
            if not getattr(self, "use_res_connect", getattr(self, "apply_residual", True)):
                return seen
            total = self.canonizer_sum(torch.stack([x if skip is None else skip(x), seen], dim=-1))
            return getattr(self, relu)(total) if relu else total

        super().__init__(attributes)


def module_name(module):
    return type(module).__name__


RESIDUAL = {"InvertedResidual", "_InvertedResidual", "ResBottleneckBlock"}
CANONIZERS = {
    "plain": lambda: [],
    "merge": lambda: [zennit.canonizers.SequentialMergeBatchNorm()],
    "resnet": lambda: [zennit.torchvision.ResNetCanonizer()],
    "residual": lambda: [
        zennit.canonizers.SequentialMergeBatchNorm(),
        Residual("none", "conv", None),
        Residual("none", "layers", None),
        Residual("proj", "f", "activation"),
    ],
}


def zennit_rule(how):
    return {
        "z+": lambda: zennit.rules.ZPlus(stabilizer=1e-14),
        "epsilon": lambda: zennit.rules.Epsilon(1e-12),
        "gamma": lambda: zennit.rules.Gamma(0.25, stabilizer=1e-14),
    }[how]()


@pytest.mark.parametrize("how", ["z+", "epsilon", "gamma"])
@pytest.mark.parametrize("name", ZENNIT)
def test_vision_equals_zennit(name, how):
    network = CATALOGUE[name]
    model, x, _ = made(name)

    def choose(ctx, module_name, module):
        if isinstance(module, zennit.types.Linear):
            return zennit_rule(how)
        if isinstance(module, zennit.types.Activation):
            return zennit.rules.Pass()
        return zennit.rules.Norm(1e-14) if isinstance(module, (zennit.layer.Sum, *AVERAGES)) else None

    composite = zennit.core.Composite(module_map=choose, canonizers=CANONIZERS[network.zennit]())
    value = model(x).detach()
    start = torch.zeros_like(value).scatter(1, value.argmax(1, keepdim=True), value.max(1, keepdim=True).values)
    with warnings.catch_warnings(), Gradient(model=model, composite=composite) as attributor:
        expected = attributor(x, start)[1]
    ours = LRP(Composite(RULES[how], sums="closed"))(model, x)
    close([ours], [expected])


AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


def test_almost_all_networks_are_explained():
    refused = [name for name, network in CATALOGUE.items() if network.refused]
    assert len(CATALOGUE) >= 100
    assert sum(name.startswith("torchvision") for name in CATALOGUE) >= 20
    assert 1 - len(refused) / len(CATALOGUE) >= 0.95, refused
