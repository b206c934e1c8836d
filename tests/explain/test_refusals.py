"""What has no rule is refused by name, with what to do; what is harmless is not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    DeepTaylor,
    Epsilon,
    GuidedBackprop,
    IntegratedGradients,
    Sensitivity,
    UnexplainableError,
    ZBox,
    ZPlus,
)


class Function(nn.Module):
    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


class Cosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.cos()


LINEAR = {"layer": nn.Linear(4, 4)}
REFUSED = {
    "power below 1": (Function(lambda m, x: m.layer(x) ** -0.5, **LINEAR), "'pow'"),
    "cosine": (Function(lambda m, x: m.layer(x).cos(), **LINEAR), "'cos'"),
    "cosine in a custom function": (Function(lambda m, x: m.layer(Cosine.apply(x)), **LINEAR), "'cos'"),
    "exp": (Function(lambda m, x: m.layer(m.layer(x).exp()), **LINEAR), "'exp'"),
    "division": (Function(lambda m, x: 1 / m.layer(x), **LINEAR), "'reciprocal'"),
    "softmax within": (nn.Sequential(nn.Linear(4, 3), nn.Softmax(1), nn.Linear(3, 3)), "remove the softmax"),
    "product of signals": (Function(lambda m, x: m.layer(x) * m.layer(x), **LINEAR), "neither of which is a gate"),
    "product of gates": (
        Function(lambda m, x: m.layer(x.sigmoid() * m.layer(x).sigmoid()), **LINEAR), "two gates"),
    "matrix product of signals": (Function(lambda m, x: x @ (x.t() @ x), **LINEAR), "two signals"),
    "clamped by a signal": (Function(lambda m, x: m.layer(x).clamp(min=x.tanh()), **LINEAR), "first argument"),
    "cumulative product": (Function(lambda m, x: m.layer(x).cumprod(1), **LINEAR), "'cumprod'"),
    "scan of logarithms": (Function(lambda m, x: m.layer(x).logcumsumexp(1), **LINEAR), "write it as a loop"),
    "gradient within": (
        Function(lambda m, x: torch.ops.aten.tanh_backward(m.layer(x), x), **LINEAR), "write that derivative out"),
    "batch norm in train mode": (
        Function(lambda m, x: m.norm(m.layer(x)), norm=nn.BatchNorm1d(4), **LINEAR), "model.eval"),
    "constant output": (Function(lambda m, x: torch.ones(2, 3)), "output does not depend on"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(
    "method", [LRP(ZPlus()), DeepTaylor(), LRP(AlphaBeta(2, 1))], ids=["z+", "DTD", "alpha-beta"]
)
def test_what_has_no_rule_is_refused(method, name):
    model, words = REFUSED[name]
    with pytest.raises(UnexplainableError, match=words):
        method(model, torch.rand(2, 4), 0)


def test_the_place_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Softmax(1)), nn.Linear(4, 3))
    with pytest.raises(UnexplainableError, match=r"'softmax' .* in '1\.1' \(Softmax\)"):
        LRP()(model, torch.rand(2, 4))


LATER = {
    "product of signals": lambda h, x: h * x,
    "matrix product": lambda h, x: h @ x.t(),
    "through other operations": lambda h, x: torch.cat([h.relu().view(-1, 2, 2).flatten(1), x], 1) ** 2,
    "another without a rule": lambda h, x: torch.special.i0(h),
}


@pytest.mark.parametrize("later", LATER)
def test_what_was_refused_first_is_named(later):
    """What comes after cannot be mended before."""
    model = Function(lambda m, x: LATER[later](m.layer(torch.lgamma(m.layer(x).relu() + 1)), x), **LINEAR)
    with pytest.raises(UnexplainableError, match="'lgamma'"):
        LRP(Epsilon())(model, torch.rand(3, 4), 1)


def test_what_has_no_rule_may_be_used_where_no_relevance_goes():
    """As a gate's argument, kept beside, or compared."""
    model = Function(lambda m, x: m.layer(x) * torch.sigmoid(m.layer(x) ** 2) * (m.layer(x).exp() > 1), **LINEAR)
    model.register_forward_hook(lambda module, args, output: setattr(module, "kept", output.detach()))
    assert LRP(Epsilon())(model, torch.rand(2, 4), lambda output: output.sum(1)).abs().sum() > 0
    assert not hasattr(model, "kept")


HARMLESS = {
    "identity": nn.Sequential(nn.Identity(), nn.Linear(4, 3)),
    "shapes": Function(lambda m, x: m.layer(x.reshape(x.shape[0], x.size(1)).view(len(x), -1)), **LINEAR),
    "new tensors": Function(lambda m, x: m.layer(x) + torch.zeros_like(x) + x.new_zeros(4), **LINEAR),
    "conditions": Function(lambda m, x: m.layer(x) if x.dim() == 2 and x.device.type else x, **LINEAR),
    "types": Function(lambda m, x: m.layer(x.float().contiguous().clone().to(x.device)), **LINEAR),
    "weights made on the way": Function(lambda m, x: F.linear(x, m.layer.weight.abs() - F.softplus(m.layer.weight)),
                                        **LINEAR),
    "normalised pixels": Function(lambda m, x: m.layer((x - 0.5) / 0.25), **LINEAR),
    "residual": Function(lambda m, x: F.relu(x + m.layer(x)), **LINEAR),
    "transposed": Function(lambda m, x: m.layer(x.T.mT), **LINEAR),
    "builtin sum": Function(lambda m, x: sum(m.layer(part) for part in (x, x)), **LINEAR),
    "activations": nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.ELU(), nn.LeakyReLU(), nn.Sigmoid(), nn.Linear(4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("method", [LRP(ZPlus()), DeepTaylor(), LRP(AlphaBeta(2, 1)), LRP(Epsilon())])
def test_what_is_harmless_is_not_refused(method, name):
    model = HARMLESS[name]
    relevance = method(model, torch.rand(3, 4))
    assert relevance.isfinite().all()
    assert relevance.shape == (3, 4)


def test_normalised_pixels_are_pixels():
    """(x - m) / s before the first layer gives the relevance of a first layer that does it itself."""
    torch.manual_seed(3)
    layer = nn.Linear(4, 6, bias=False).double()
    x = torch.rand(3, 4, dtype=torch.float64) * 2 - 1
    shift = torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=torch.float64)
    for scale in (2.0, -2.0):
        ours = DeepTaylor(-1, 1)(
            Function(lambda m, x, scale=scale: F.relu(layer((x - shift) * scale)), layer=layer), x, 2
        )
        low, high = sorted([(-1 - shift) * scale, (1 - shift) * scale], key=lambda bound: float(bound.sum()))
        w = layer.weight.detach()[2]
        z = ((x - shift) * scale - low) * w.clamp(min=0) + ((x - shift) * scale - high) * w.clamp(max=0)
        start = (((x - shift) * scale) @ w).clamp(min=0)
        torch.testing.assert_close(ours, z / z.sum(1, keepdim=True) * start[:, None])


def test_rules_that_share_differently_are_not_summed():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.one(x) + self.two(x)

    with pytest.raises(UnexplainableError, match="same rule"):
        LRP(Composite(ZPlus(), by_name={"two": AlphaBeta(2, 1)}))(Sum(), torch.rand(2, 4))


@pytest.mark.parametrize("method", [Sensitivity(), DeepTaylor()])
@pytest.mark.parametrize(
    ("x", "target", "words"),
    [
        (torch.rand(2, 4), 7, "target 7 is not among the classes 0 to 2"),
        (torch.rand(2, 4), -1, "target -1"),
        (torch.rand(2, 4), torch.tensor([0, 1, 2]), "target must be"),
        (torch.rand(2, 4), torch.tensor([0.5, 1.0]), "target must be"),
        (torch.ones(2, 4, dtype=torch.bool), 0, "floating-point"),
        (torch.rand(4), 0, "floating-point"),
        ([[0.0] * 4], 0, "got list"),
    ],
)
def test_bad_input_is_refused(x, target, words, method):
    with pytest.raises(ValueError, match=words):
        method(nn.Linear(4, 3), x, target)


@pytest.mark.parametrize("method", [Sensitivity(), LRP()])
def test_a_model_of_another_shape_is_refused(method):
    with pytest.raises(ValueError, match=r"logits of shape \(2, classes\), got \(2, 2, 3\)"):
        method(nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), torch.rand(2, 4), 0)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no layer 'nowhere' in the network: choose from 0, 1"):
        LRP().explain(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(2, 4), layers=["nowhere"])


def test_z_box_bounds_may_be_given():
    with pytest.raises(ValueError, match="low=1"):
        ZBox(1, 0)


@pytest.mark.parametrize("value", [0.0, -1.0, 0.5])
def test_padded_pixels_are_pixels_and_the_padding_is_not(value):
    """Deep Taylor on padded pixels: z^B for the pixels, z+ for the padding, one denominator."""
    torch.manual_seed(1)
    conv = nn.Conv1d(1, 1, 3, bias=False).double()
    x = torch.rand(4, 1, 1, dtype=torch.float64) * 2 - 1
    model = Function(lambda m, x: F.relu(conv(F.pad(x, (1, 1), value=value))).flatten(1), conv=conv)
    relevance = DeepTaylor(-1, 1)(model, x, 0).flatten()
    w = conv.weight.detach().flatten()
    pixel = (x.flatten() + 1) * w[1].clamp(min=0) + (x.flatten() - 1) * w[1].clamp(max=0)
    padding = (value * w[[0, 2]]).clamp(min=0).sum()
    start = model(x).flatten().detach()
    torch.testing.assert_close(relevance, torch.where(start > 0, pixel / (pixel + padding) * start, 0.0))


def test_padding_inside_a_convolution_and_before_it_agree():
    conv = nn.Conv2d(1, 3, 3, padding=1, bias=False).double()
    bare = nn.Conv2d(1, 3, 3, bias=False).double()
    bare.weight = conv.weight
    x = torch.rand(2, 1, 5, 5, dtype=torch.float64) * 2 - 1
    inside = Function(lambda m, x: F.relu(conv(x)).flatten(1), conv=conv)
    before = Function(lambda m, x: F.relu(bare(F.pad(x, (1, 1, 1, 1)))).flatten(1), bare=bare)
    for method in (DeepTaylor(), LRP(ZPlus()), LRP(AlphaBeta(2, 1)), LRP(Epsilon())):
        torch.testing.assert_close(method(before, x), method(inside, x))


def test_a_softmax_within_can_be_a_signal_as_the_message_says():
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1), nn.Linear(3, 3))
    with pytest.raises(UnexplainableError, match='softmax="signal"'):
        LRP(Epsilon())(model, torch.rand(2, 4))
    assert LRP(Composite(Epsilon(), softmax="signal"))(model, torch.rand(2, 4)).any()


@pytest.mark.parametrize("other", [lambda h: h.to(torch.complex64).angle(), lambda h: torch.frexp(h)[1].float()])
def test_a_branch_is_not_left_out_without_a_word(other):
    model = Function(lambda m, x: m.layer(x) + other(m.layer(x)), **LINEAR)
    with pytest.raises(UnexplainableError, match="No relevance rule"):
        LRP(Epsilon())(model, torch.rand(2, 4), 1)


@pytest.mark.parametrize("name", ["sign", "round", "whole numbers"])
def test_a_number_that_is_rounded_has_the_relevance_of_the_rounded(name):
    way = {"sign": torch.sign, "round": torch.round, "whole numbers": lambda h: h.int().float()}[name]
    model = Function(lambda m, x: m.out(way(9 * m.layer(x))), out=nn.Linear(4, 2), **LINEAR)
    x = torch.randn(3, 4)
    relevance = LRP(Composite(Epsilon(1e-9), bias="spread"))(model, x, 1)
    torch.testing.assert_close(relevance.sum(1), model(x)[:, 1].detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [Sensitivity(), GuidedBackprop(), IntegratedGradients()])
def test_an_output_without_gradient_is_refused_by_the_gradient(method):
    model = Function(lambda m, x: (m.layer(x) > 0).float(), **LINEAR)
    with pytest.raises(UnexplainableError, match="no gradient by its input"):
        method(model, torch.rand(2, 4), 0)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("way", [lambda x: x.sort(1)[0], lambda x: x.topk(2, 1)[0], lambda x: x.cummax(1)[0]])
def test_tokens_that_are_sorted_are_refused(way, create_graph):
    model = Function(lambda m, x: m.table(way(x)).sum(1), table=nn.Embedding(9, 2))
    with pytest.raises(UnexplainableError, match="look them up before it"):
        LRP(Epsilon(), create_graph=create_graph)(model, torch.tensor([[5, 2, 7], [1, 8, 3]]), 0)
