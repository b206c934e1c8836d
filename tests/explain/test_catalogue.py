"""Networks as people have them: explained right, or refused, by an oracle for each method."""

import copy
import functools
from types import MappingProxyType

import pytest
import torch
import zennit.canonizers
import zennit.core
import zennit.layer
import zennit.rules
import zennit.torchvision
import zennit.types
from catalogue import BATCH, CATALOGUE, called, explained, precision, single, tensors
from catalogue.linearised import Guided, Linearised, Plain, by_autograd
from catalogue.methods import METHODS, RULES, method
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision import models
from zennit.attribution import Gradient

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, UnexplainableError

pytestmark = pytest.mark.filterwarnings("ignore")


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
    if (refused := network.refused) and how != "guided backprop":
        with pytest.raises(UnexplainableError, match=refused):
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

    if (
        how in ("z+", "deep Taylor") and network.second_way and not network.options
    ):  # a product's other factor may be negative
        number = oracle(Plain, network, model, x, arguments, lambda gradient, leaf: gradient)[1]
        number = (
            number
            if "log_softmax" not in network.contains
            else explained_before_squash(network, model, x, arguments)
        )
        assert all(float(part.min()) >= -1e-9 * float(number.max()) for part in parts)
        assert bool((totals(relevance) <= number * (1 + 1e-6) + 1e-9).all())
    if how == "epsilon" and network.second_way:
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


@pytest.mark.parametrize(
    "rule", [Epsilon(1e-2), Gamma(0.25), AlphaBeta(2, 1)], ids=["epsilon", "gamma", "alpha-beta"]
)
@pytest.mark.parametrize(
    "name", [n for n, network in CATALOGUE.items() if not network.constant and not network.refused]
)
def test_relevance_adds_up_to_the_logit_where_biases_are_spread(name, rule):
    network = CATALOGUE[name]
    model, x, arguments = made(name)
    number = (
        explained_before_squash(network, model, x, arguments)
        if network.second_way
        else explained(called(model, x, arguments), network.target).detach()
    )
    relevance = LRP(Composite(rule, bias="spread", **network.options))(model, x, network.target, **arguments)
    large = float(max(part.abs().max() for part in tensors(relevance)))  # epsilon has large parts that cancel
    torch.testing.assert_close(totals(relevance), number, rtol=1e-6, atol=1e-9 * max(large, 1))


# -- zennit, with its canonizers, on what is made of modules

ZENNIT = [name for name, network in CATALOGUE.items() if network.zennit]


class Residual(zennit.canonizers.AttributeCanonizer):
    """Sums of the residual blocks that zennit has no canonizer for become modules."""

    BODIES = MappingProxyType(
        {
            models.mobilenetv2.InvertedResidual: lambda block, x: block.conv(x),
            models.mnasnet._InvertedResidual: lambda block, x: block.layers(x),
            models.regnet.ResBottleneckBlock: lambda block, x: block.f(x),
            models.video.resnet.BasicBlock: lambda block, x: block.conv2(block.conv1(x)),
        }
    )

    def __init__(self):
        super().__init__(self.attributes)

    @classmethod
    def attributes(cls, name, module):
        if type(module) not in cls.BODIES:
            return None
        return {"canonizer_sum": zennit.layer.Sum(), "forward": cls.forward.__get__(module)}

    @staticmethod
    def forward(block, x):
        seen = Residual.BODIES[type(block)](block, x)
        if not getattr(block, "use_res_connect", getattr(block, "apply_residual", True)):
            return seen
        skip = getattr(block, "proj", getattr(block, "downsample", None))
        total = block.canonizer_sum(torch.stack([x if skip is None else skip(x), seen], dim=-1))
        after = getattr(block, "activation", getattr(block, "relu", None))
        return total if after is None else after(total)


CANONIZERS = {
    "plain": lambda: [],
    "merge": lambda: [zennit.canonizers.SequentialMergeBatchNorm()],
    "resnet": lambda: [zennit.torchvision.ResNetCanonizer()],
    "residual": lambda: [zennit.canonizers.SequentialMergeBatchNorm(), Residual()],
}
ZENNIT_RULES = {
    "z+": lambda: zennit.rules.ZPlus(stabilizer=1e-14),
    "epsilon": lambda: zennit.rules.Epsilon(1e-12),
    "gamma": lambda: zennit.rules.Gamma(0.25, stabilizer=1e-14),
}
AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


class ClosedSum(zennit.core.Hook):
    """A residual sum (..., terms), closed by the rule itself, where zennit's own composites always take `Norm`."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def copy(self):
        return ClosedSum(self.how)

    def forward(self, module, input, output):
        self.stored_tensors["terms"] = input[0]

    def backward(self, module, grad_input, grad_output):
        terms = self.stored_tensors["terms"]
        total = terms.sum(-1, keepdim=True)
        if self.how == "z+":
            terms = terms.clamp(min=0)
        if self.how == "gamma":
            terms = terms + 0.25 * torch.where(terms * total > 0, terms, 0)
        total = terms.sum(-1, keepdim=True)
        return (terms / total.masked_fill(total == 0, torch.inf) * grad_output[0].unsqueeze(-1),)


@pytest.mark.parametrize("how", ZENNIT_RULES)
@pytest.mark.parametrize("name", ZENNIT)
def test_vision_equals_zennit(name, how):
    network = CATALOGUE[name]
    model, x, _ = made(name)
    model = copy.deepcopy(model)
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            norm.eps = 0.0  # zennit 0.5 leaves a factor of 1 / sqrt(1 + eps) behind where it merges

    def choose(ctx, module_name, module):
        if isinstance(module, zennit.types.Linear):
            return ZENNIT_RULES[how]()
        if isinstance(module, zennit.types.Activation):
            return zennit.rules.Pass()
        if isinstance(module, zennit.layer.Sum):
            return ClosedSum(how)
        return zennit.rules.Norm(1e-14) if isinstance(module, AVERAGES) else None

    composite = zennit.core.Composite(module_map=choose, canonizers=CANONIZERS[network.zennit]())
    value = model(x).detach()
    start = torch.zeros_like(value).scatter(1, value.argmax(1, keepdim=True), value.max(1, keepdim=True).values)
    with Gradient(model=model, composite=composite) as attributor:
        expected = attributor(x, start)[1]
    close([LRP(Composite(RULES[how], sums="closed"))(model, x)], [expected])


def test_almost_all_networks_are_explained():
    refused = [name for name, network in CATALOGUE.items() if network.refused]
    assert len(CATALOGUE) >= 100
    assert sum(name.startswith("torchvision") for name in CATALOGUE) >= 20
    assert 1 - len(refused) / len(CATALOGUE) >= 0.95, refused
