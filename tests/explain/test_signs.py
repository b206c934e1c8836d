"""A logit of any sign, and networks that are negated as a whole or in part."""

import warnings

import numpy as np
import pytest
import torch
from readers import assert_equal
from shares import share
from torch import nn
from two_layers import METHODS, RULES, Last, data, network

from rnnx_lightning import explain
from rnnx_lightning.explain import LRP, AlphaBeta, Composite, DeepTaylor, Epsilon, Flat, Gamma, ZPlus


def naive(model, x, target, book, positive=False):
    (W, b, V, c), result = (p.detach().numpy() for p in model.parameters()), []
    for example, k in zip(x, target.tolist(), strict=True):
        logits, hidden = model(example).detach().numpy(), model[:2](example).detach().numpy()
        R = np.where(np.arange(3) == k, np.maximum(logits, 0) if positive else logits, 0)
        result.append(share(W * example.numpy(), b, share(V * hidden, c, R, book), book))
    return torch.tensor(np.array(result))


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("start", ["logit", "positive"])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.filterwarnings("ignore")
def test_a_logit_of_any_sign(name, start, act):
    model, (x, target), (rule, book) = network(act), data(), RULES[name]
    logits = model(x).gather(1, target[:, None])[:, 0].detach()
    assert (logits < 0).any()
    assert (logits > 0).any()
    explanation = LRP(rule, start=start).explain(model, x, target)
    assert_equal(explanation.relevance, naive(model, x, target, book, start == "positive"))
    torch.testing.assert_close(explanation.explained, logits if start == "logit" else logits.clamp(min=0))


@pytest.mark.parametrize(
    ("method", "start"),
    [
        (LRP, "positive"),
        (DeepTaylor, "positive"),
        (lambda: LRP(alpha=1.5, beta=0.5), "positive"),
        (lambda: LRP(ZPlus()), "positive"),
        (lambda: LRP(Composite(ZPlus(), pixels=Epsilon())), "positive"),
        (lambda: LRP(Epsilon()), "logit"),
        (lambda: LRP(Gamma()), "logit"),
        (lambda: LRP(Composite(Epsilon(), pixels=Flat())), "logit"),
    ],
)
def test_where_nothing_is_said_it_starts_as_published(method, start):
    model, (x, target) = network(), data()
    negative = model(x).gather(1, target[:, None])[:, 0] <= 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explanation = method().explain(model, x.clamp(-1, 1), target)
    negative = explanation.logits.gather(1, target[:, None])[:, 0] <= 0
    told = [w for w in caught if issubclass(w.category, explain.NothingToExplainWarning)]
    assert negative.any()
    if start == "logit":
        assert not told
        assert not explanation.nothing.any()
        assert explanation.relevance[negative].abs().sum(1).all()
    else:
        assert len(told) == 1
        assert torch.equal(explanation.nothing, negative)
        assert (explanation.relevance[negative] == 0).all()


def test_that_nothing_is_said_is_told_once_for_all_batches():
    model, (x, target) = network(), data()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for size in range(1, len(x)):
            LRP(ZPlus())(model, x[:size], target[:size])
    told = [w for w in caught if issubclass(w.category, explain.NothingToExplainWarning)]
    assert len(told) == 1
    assert "`explain(...).nothing` says which" in str(told[0].message)
    assert 'LRP(..., start="logit") explains' in str(told[0].message)


def test_an_output_of_0_is_not_explained_by_another_start():
    (x, _) = data()
    with pytest.warns(explain.NothingToExplainWarning, match=r"output is 0, .* says which\.$"):
        LRP(ZPlus(), start="logit")(network(), x, lambda logits: 0 * logits[:, 0])


def test_nobody_is_warned_where_there_is_something_to_explain():
    model, (x, _) = network(seed=3), data()
    x = x[model(x).amax(1) > 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not DeepTaylor(-4, 4).explain(model, x).nothing.any()
        LRP()(model, x)


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="start"):
        LRP(start="both")


NEGATIONS = {
    "-z": lambda z: -z,
    "neg": torch.neg,
    "-1 * z": lambda z: -1 * z,
    "z / -1": lambda z: z / -1.0,
    "0 - z": lambda z: 0 - z,
    "zeros - z": lambda z: torch.zeros_like(z) - z,
    "times a tensor": lambda z: z * torch.tensor([-1.0, -1.0, -1.0], dtype=z.dtype),
    "three times": lambda z: -torch.neg(-z),
}


@pytest.mark.parametrize("negation", NEGATIONS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_a_negated_network_is_one_with_negated_weights(name, negation):
    model, (x, target) = network(), data()
    written = Last(network(), NEGATIONS[negation])
    with torch.no_grad():
        model[2].weight.neg_()
        model[2].bias.neg_()
    torch.testing.assert_close(written(x), model(x))
    method = METHODS[name]()
    assert_equal(method(written, x, target), method(model, x, target))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_differences_and_scales_of_mixed_sign_inside(name):
    """relu(s * (W x) - V x) is relu((s W - V) x) with the contributions of both kept apart: a layer of [x, x]."""
    torch.manual_seed(1)
    first, second, out = (nn.Linear(n, m, bias=False).double() for n, m in ((5, 4), (5, 4), (4, 3)))
    scale = torch.tensor([1.0, -2.0, 0.5, -1.0], dtype=torch.float64)
    if name in ("w^2", "flat"):
        scale = scale.sign()  # whether they count a scale with the weights is their own matter
    both = nn.Linear(10, 4, bias=False).double()
    both.weight.data = torch.cat([scale[:, None] * first.weight.data, -second.weight.data], 1)

    class Written(nn.Module):
        def forward(self, x):
            return out(torch.relu(scale * first(x) - second(x)))

    class Joined(nn.Module):
        def forward(self, x):
            return out(torch.relu(both(torch.cat([x, x], 1))))

    (x, target), method = data(), METHODS[name]()
    assert_equal(method(Written(), x, target), method(Joined(), x, target))


class Scaled(nn.Module):
    """Signals times a scale s(gate), or times its value, a constant."""

    def __init__(self, scale, constant=None):
        super().__init__()
        self.scale, self.constant = scale, constant
        self.weights = nn.ParameterList(torch.randn(shape) for shape in ((6, 8), (6, 8), (8, 2)))

    def forward(self, x):
        one, two, out = self.weights
        signal, scale = x @ one, self.scale(torch.sigmoid(x @ two)) if self.constant is None else self.constant
        return (torch.relu(signal) * scale + 0.3 * signal * scale) @ out


SCALES = {
    "log": torch.log,
    "log of a sum": lambda g: torch.log(g + 1e-6) / 3,
    "log1p": lambda g: torch.log1p(g - 0.5),
    "log-softmax": lambda g: g.log_softmax(1),
    "reciprocal": lambda g: 1 / (g - 0.5),
    "constant over gate": lambda g: torch.linspace(-1, 1, 8, dtype=g.dtype) / g,
    "gate over gate": lambda g: (g - 0.5) / g.flip(1),
    "gate over signed gate": lambda g: g / (g.flip(1) - 0.5),
    "negative power": lambda g: (g - 0.5) ** -1,
    "negative powers": lambda g: (g - 0.5) ** torch.full((8,), -1.0, dtype=g.dtype),
    "power of a number": lambda g: 2**g - 1.5,
    "sine": lambda g: torch.sin(7 * g),
    "tangent": lambda g: torch.tan(3 * g),
    "minus constants": lambda g: g - torch.linspace(0.1, 0.9, 8, dtype=g.dtype),
    "normalised": lambda g: nn.functional.batch_norm(g, 0.5 + 0 * g[0].detach(), 1 + 0 * g[0].detach()),
    "negative bound": lambda g: g.clamp(max=-0.3),
    "threshold": lambda g: nn.functional.threshold(g, 0.5, -1.0),
}


@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(2, 1), Gamma(0.25), Epsilon(1e-12)])
@pytest.mark.parametrize("name", SCALES)
def test_a_scale_of_any_sign_is_as_its_value(name, rule):
    torch.manual_seed(0)
    model, x = Scaled(SCALES[name]).double(), torch.randn(1, 6).double()
    constant = SCALES[name](torch.sigmoid(x @ model.weights[1])).detach()
    assert (constant < 0).any()
    plain = Scaled(None, constant).double()
    plain.load_state_dict(model.state_dict())
    explain = LRP(Composite(rule, products="half" if "gate over" in name else "refuse"), start="logit")
    for target in (0, 1):
        assert_equal(explain(model, x, target), explain(plain, x, target))


@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(2, 1), Gamma(0.25)])
@pytest.mark.parametrize("wave", [torch.sin, torch.tan])
def test_a_wave_of_positive_values_has_both_signs(wave, rule):
    torch.manual_seed(0)
    first, out, x = torch.rand(6, 8).double(), torch.randn(8, 2).double(), torch.rand(2, 6).double()

    class Wave(nn.Module):
        def __init__(self, rectified):
            super().__init__()
            self.rectified = rectified

        def forward(self, x):
            net = x @ first
            return wave(2 * (torch.relu(net) if self.rectified else net)) @ out

    assert (wave(2 * (x @ first)) < 0).any()
    explain = LRP(Composite(rule), start="logit")
    assert_equal(explain(Wave(True), x, 0), explain(Wave(False), x, 0))
