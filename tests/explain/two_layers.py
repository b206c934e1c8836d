"""Two layers, methods to explain them, and something done to their outputs."""

import torch
from shares import Book
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    DeepTaylor,
    Epsilon,
    Flat,
    Gamma,
    WSquare,
    ZBox,
    ZPlus,
)

RULES = {
    "z+": (ZPlus(), Book("z+")),
    "alpha-beta": (AlphaBeta(2, 1), Book("alpha-beta", alpha=2.0, beta=1.0)),
    "epsilon": (Epsilon(0.01), Book(epsilon=0.01)),
    "epsilon 0": (Epsilon(0.0), Book()),
    "gamma": (Gamma(0.25), Book("gamma", gamma=0.25)),
}
METHODS = {name: lambda rule=rule: LRP(rule, start="logit") for name, (rule, _) in RULES.items()} | {
    "z^B": lambda: LRP(Composite(ZPlus(), pixels=ZBox(-4, 4)), start="logit"),
    "w^2": lambda: LRP(Composite(ZPlus(), pixels=WSquare()), start="logit"),
    "flat": lambda: LRP(Composite(Epsilon(0.01), pixels=Flat()), start="logit"),
    "deep Taylor": lambda: DeepTaylor(-4, 4),
    "published alpha-beta": lambda: LRP(alpha=1.5, beta=0.5),
}


def network(act=nn.ReLU, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7, bias=bias), act(), nn.Linear(7, 3, bias=bias)).double()


def data(count=8):
    return torch.randn(count, 5, dtype=torch.float64), torch.arange(count) % 3


class Last(nn.Module):
    """Two layers, and something done to what they give."""

    def __init__(self, model, function):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x):
        return self.function(self.model(x))
