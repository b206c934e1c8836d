"""Each rule on each kind of linear layer against naive dense algebra from the layer's Jacobian."""

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.architectures.layers import SumLikePool2d
from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    WSquare,
    ZBox,
    ZPlus,
)

RULES = {
    "ZPlus": (ZPlus(), naive.z_plus, {}),
    "AlphaBeta 2 1": (AlphaBeta(2, 1), naive.alpha_beta, {"alpha": 2, "beta": 1}),
    "AlphaBeta 1.5 0.5": (AlphaBeta(1.5, 0.5), naive.alpha_beta, {"alpha": 1.5, "beta": 0.5}),
    "AlphaBeta 1 0": (AlphaBeta(1, 0), naive.z_plus, {}),
    "Epsilon": (Epsilon(0.01), naive.epsilon_rule, {"epsilon": 0.01}),
    "Epsilon 0": (Epsilon(0), naive.epsilon_rule, {"epsilon": 0}),
    "Gamma": (Gamma(0.3), naive.gamma_rule, {"gamma": 0.3}),
    "ZBox": (ZBox(-1, 1), naive.z_box, {"low": -1, "high": 1}),
    "ZBox 0 2": (ZBox(-1, 2), naive.z_box, {"low": -1, "high": 2}),
    "WSquare": (WSquare(), naive.w_square, {}),
    "Flat": (Flat(), naive.flat, {}),
}


class Expression(nn.Module):
    """A function of the input with weights of its own, written without a module."""

    def __init__(self, function, *shapes):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)
        self.function = function

    def forward(self, x):
        return self.function(x, *self.weights)


LAYERS = {
    "Linear": lambda: (nn.Linear(6, 5), (6,)),
    "Linear without bias": lambda: (nn.Linear(6, 5, bias=False), (6,)),
    "Conv2d": lambda: (nn.Conv2d(2, 3, 3, padding="same"), (2, 4, 5)),
    "Conv2d, channels last": lambda: (
        nn.Conv2d(2, 3, 3, padding="same").to(memory_format=torch.channels_last),
        (2, 4, 5),
    ),
    "Conv2d of one channel, channels last": lambda: (
        nn.Conv2d(1, 3, 3, padding="same", bias=False).to(memory_format=torch.channels_last),
        (1, 4, 5),
    ),
    "Conv2d strided": lambda: (nn.Conv2d(2, 3, 3, stride=2, padding=1, dilation=1), (2, 5, 4)),
    "Conv2d grouped": lambda: (nn.Conv2d(2, 4, 2, groups=2, bias=False), (2, 4, 4)),
    "Conv1d": lambda: (nn.Conv1d(2, 3, 2), (2, 6)),
    "ConvTranspose2d": lambda: (nn.ConvTranspose2d(2, 2, 2, stride=2), (2, 2, 3)),
    "F.linear": lambda: (Expression(lambda x, w, b: F.linear(x, w, b), (5, 6), (5,)), (6,)),
    "x @ w": lambda: (Expression(lambda x, w: x @ w, (6, 5)), (6,)),
    "x @ w + b": lambda: (Expression(lambda x, w, b: x @ w + b, (6, 5), (5,)), (6,)),
    "b + matmul": lambda: (Expression(lambda x, w, b: b + torch.matmul(x, w.t()), (5, 6), (5,)), (6,)),
    "w @ x": lambda: (Expression(lambda x, w: (w @ x.unsqueeze(2)).squeeze(2), (5, 6)), (6,)),
    "addmm": lambda: (Expression(lambda x, b, w: torch.addmm(b, x, w), (5,), (6, 5)), (6,)),
    "einsum": lambda: (Expression(lambda x, w: torch.einsum("bi,ij->bj", x, w), (6, 5)), (6,)),
    "W x + U y": lambda: (
        Expression(lambda x, w, u, b: F.linear(x[:, :2], w) + F.linear(x[:, 2:], u, b), (5, 2), (5, 4), (5,)),
        (6,),
    ),
    "chunked sum": lambda: (
        Expression(
            lambda x, w, u: torch.cat(
                [a + b for a, b in zip(F.linear(x, w).chunk(2, 1), F.linear(x * 1.0, u).chunk(2, 1), strict=True)],
                1,
            ),
            (6, 4),
            (6, 4),
        ),
        (4,),
    ),
    "scaled sum": lambda: (Expression(lambda x, w: 0.5 * (x @ w) + (x @ w) / 4, (6, 5)), (6,)),
}
DISCONNECTED = {name for name in LAYERS if name.startswith(("Conv", "W x + U y"))}
# Of several linear maps in one sum, rules that are not linear in the weights see each map for itself.
SEVERAL_MAPS = {"chunked sum", "scaled sum"}


def dense(layer, a):
    """Jacobian (outputs, inputs) and bias of a layer, as NumPy arrays."""
    zero = torch.zeros_like(a)[None]
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x).flatten(), zero)
    return jacobian.flatten(1).numpy(), layer(zero).flatten().detach().numpy()


@pytest.mark.parametrize("signs", ["positive", "mixed"])
@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("rule_name", RULES)
def test_rule_equals_naive_algebra(rule_name, layer_name, signs):
    rule, formula, arguments = RULES[rule_name]
    if layer_name in SEVERAL_MAPS and not rule_name.startswith("Epsilon"):
        pytest.skip("the rule is not linear in the weights")
    torch.set_default_dtype(torch.float64)
    try:
        layer, shape = LAYERS[layer_name]()
        x = torch.rand(3, *shape) * (2 if signs == "mixed" else 1) - (1 if signs == "mixed" else 0)
        model = nn.Sequential(layer, nn.Flatten())
        logits = model(x).detach()
        for target in range(logits.shape[1]):
            relevance = LRP(rule, start="logit")(model, x, target)
            for b in range(len(x)):
                J, bias = dense(layer, x[b])
                R = np.zeros(len(J))
                R[target] = float(logits[b, target])
                extra = {}
                if rule_name == "Flat" and layer_name in DISCONNECTED:
                    extra = {"connected": J != 0}
                expected = formula(J, x[b].flatten().numpy(), bias, R, **arguments, **extra)
                np.testing.assert_allclose(relevance[b].flatten().numpy(), expected, rtol=1e-9, atol=1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


def test_alpha_one_beta_zero_is_z_plus():
    model, x = nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(5, 9)
    assert torch.equal(LRP(alpha=1, beta=0)(model, x), LRP(ZPlus())(model, x))


def test_closed_form_on_one_unit():
    model = nn.Linear(3, 1, bias=False)
    model.weight.data = torch.tensor([[2.0, -1.0, 1.0]])
    x = torch.tensor([[1.0, 1.0, 3.0]])  # z = 4: contributions 2, -1, 3
    torch.testing.assert_close(LRP(ZPlus())(model, x), torch.tensor([[1.6, 0.0, 2.4]]))
    torch.testing.assert_close(LRP(alpha=2, beta=1)(model, x), torch.tensor([[3.2, -4.0, 4.8]]))
    torch.testing.assert_close(LRP(Epsilon(0))(model, x), torch.tensor([[2.0, -1.0, 3.0]]))


def test_a_unit_without_negative_parts_keeps_its_relevance():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 3.0]])
    torch.testing.assert_close(LRP(alpha=2, beta=1)(model, torch.ones(1, 2)), torch.tensor([[1.0, 3.0]]))


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2)])
def test_pooling_is_in_proportion(pool):
    model, x = nn.Sequential(pool, nn.Flatten()), torch.rand(2, 1, 4, 4)
    for rule in (ZPlus(), AlphaBeta(2, 1), Epsilon(0)):
        relevance = LRP(rule)(model, x, 0)
        expected = torch.zeros_like(x)
        expected[:, :, :2, :2] = x[:, :, :2, :2] / 4  # z = mean, R_i = x_i / sum(x) * z
        torch.testing.assert_close(relevance, expected)


def test_max_pooling_gives_all_to_the_winner():
    model = nn.Sequential(nn.MaxPool1d(2), nn.Flatten())
    x = torch.tensor([[[1.0, 3.0, 2.0, 0.5]]])
    assert LRP(ZPlus())(model, x, 0).tolist() == [[[0.0, 3.0, 0.0, 0.0]]]


def test_composite_chooses_by_name_then_pixels_then_type():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.rand(2, 4)

    def used(composite):
        return LRP(composite)(model, x)

    everything = used(Composite(Epsilon(0), by_type={nn.Linear: ZPlus()}))
    torch.testing.assert_close(everything, used(Composite(ZPlus())))
    first = used(Composite(ZPlus(), by_name={"0": WSquare()}))
    torch.testing.assert_close(first, used(Composite(ZPlus(), pixels=WSquare())))
    assert not torch.allclose(first, everything)
    named = used(Composite(ZPlus(), pixels=WSquare(), by_name={"0": ZPlus()}))
    torch.testing.assert_close(named, everything)


def test_a_rule_for_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"'5'.*layers are 0, 1"):
        LRP(Composite(ZPlus(), by_name={"5": Flat()}))(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.rand(1, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: AlphaBeta(2, 2),
        lambda: AlphaBeta(0.5, -0.5),
        lambda: AlphaBeta(float("nan"), 0.5),
        lambda: Epsilon(-1e-6),
        lambda: Epsilon(float("inf")),
        lambda: Gamma(-0.25),
        lambda: Gamma(float("nan")),
        lambda: ZBox(1, 1),
        lambda: LRP(alpha=2),
    ],
)
def test_impossible_rules_are_refused(make):
    with pytest.raises(ValueError, match=r"must be|belong together"):
        make()


@pytest.mark.parametrize("rule", RULES)
def test_sum_like_pooling_is_explained_as_its_matrix(rule):
    """It has zeros, which connect nothing, and no negative weights."""
    torch.manual_seed(0)
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64) * 2 - 1
    pooling = nn.Sequential(SumLikePool2d(), nn.Flatten())
    matrix = torch.autograd.functional.jacobian(lambda x: pooling(x[None])[0], x[0]).flatten(1)
    product = Expression(lambda x: F.linear(x.flatten(1), matrix))
    explain = LRP(RULES[rule][0])
    for before in (nn.Identity(), nn.ReLU()):
        one, other = (explain(nn.Sequential(before, model), x, 4) for model in (pooling, product))
        torch.testing.assert_close(one, other)
