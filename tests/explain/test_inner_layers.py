"""The relevance of inner layers with biases: what an activation has is what the sum before it has."""

import naive
import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

RULES = {"epsilon": Epsilon(0.0), "gamma": Gamma(0.25), "z+": ZPlus(), "alpha-beta": AlphaBeta(2, 1)}
OTHERS = {
    "same rule": {},
    "flat": {"middle": Flat()},
    "w^2": {"middle": WSquare()},
    "z^B": {"middle": ZBox(-1, 1)},
}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.out = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)
        self.act = nn.Tanh()
        self.double()

    def forward(self, x):
        return self.out(self.act(self.middle(self.act(self.first(x)))))


def explained(rule, other, bias):
    model = Network()
    x = torch.randn(3, 4, dtype=torch.float64)
    method = LRP(Composite(RULES[rule], by_name=OTHERS[other], bias=bias), start="logit")
    return model, x, method.explain(model, x, 0, layers=["first", "middle", "act"])


@pytest.mark.parametrize("bias", ["share", "spread", "ignore"])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("rule", RULES)
def test_an_activation_has_what_the_sum_before_it_has(rule, other, bias):
    model, x, explanation = explained(rule, other, bias)
    first, middle = explanation.layers["act"]
    torch.testing.assert_close(explanation.layers["first"][0], first)
    torch.testing.assert_close(explanation.layers["middle"][0], middle)
    if bias == "spread" or (rule, bias) == ("epsilon", "ignore"):
        for relevance in (explanation.relevance, first, middle):
            torch.testing.assert_close(relevance.sum(1), model(x)[:, 0].detach())


def test_the_relevance_of_a_layer_by_the_book():
    model, x, explanation = explained("gamma", "same rule", "share")
    hidden = model.act(model.middle(model.act(model.first(x)))).detach().numpy()
    weight, bias = model.out.weight[:1].detach().numpy(), model.out.bias[:1].detach().numpy()
    logits = model(x)[:, :1].detach().numpy()
    expected = [naive.gamma_rule(weight, h, bias, R, 0.25) for h, R in zip(hidden, logits, strict=True)]
    for ours, book in zip(explanation.layers["middle"][0], expected, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(book))


@pytest.mark.parametrize("bias", ["share", "ignore"])
def test_a_term_of_a_sum_has_its_part_of_it(bias):
    """Of a residual sum, under LRP-0."""

    class Residual(Network):
        def forward(self, x):
            h = self.first(x)
            return self.out(self.act(nn.functional.pad(h, (0, 1)) + self.middle(h)))

    model = Residual()
    x = torch.randn(3, 4, dtype=torch.float64)
    explanation = LRP(Composite(Epsilon(0.0), bias=bias)).explain(model, x, 0, layers=["middle", "act"])
    h = model.first(x)
    middle, other = model.middle(h), h
    if bias == "ignore":
        middle, other = middle - model.middle.bias, h - model.first.bias
    part = middle / (nn.functional.pad(other, (0, 1)) + middle)
    torch.testing.assert_close(explanation.layers["middle"][0], (part * explanation.layers["act"][0]).detach())
