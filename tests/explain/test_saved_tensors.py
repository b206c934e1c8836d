"""The gradient of networks that overwrite in place what it needs."""

import random

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import GradientTimesInput
from rnnx_lightning.explain.saved_tensors import overwriting_allowed


def random_sum(seed, x, overwrites):
    """Random terms; each is made of a tensor that is overwritten afterwards, and freed."""
    draw = random.Random(seed)
    total = 0
    for k in range(1, 12):
        h = x * k
        total = total + ((h * h) if draw.random() < 0.5 else h.exp() * h).sum()
        with torch.no_grad() if draw.random() < 0.3 else torch.enable_grad():
            if overwrites:
                h.add_(1)
        h = None
        if draw.random() < 0.5:  # memory that was freed may be taken again
            h = x * 3
        elif draw.random() < 0.5:
            torch.rand(len(x))
    return total


@pytest.mark.parametrize("entries", [3, 30, 1000])
def test_new_tensors_are_not_taken_for_earlier_ones(entries):
    """As `torch.autograd.graph.allow_mutation_on_saved_tensors` does in some of these networks."""
    x = torch.rand(entries, dtype=torch.float64, requires_grad=True)
    for seed in range(100):
        (expected,) = torch.autograd.grad(random_sum(seed, x, False), x)
        with overwriting_allowed():
            (gradient,) = torch.autograd.grad(random_sum(seed, x, True), x)
        torch.testing.assert_close(gradient, expected)


class Forms(nn.Module):
    def __init__(self, write):
        super().__init__()
        self.write = write

    def forward(self, x):
        h = x * 2
        kept = h.square()
        self.write(h)
        return (kept + h.square()).sum(1)


@pytest.mark.parametrize(
    ("write", "result"),
    {
        "a view": (lambda h: h[:, :2].mul_(3), lambda h: torch.cat([3 * h[:, :2], h[:, 2:]], 1)),
        "out=": (lambda h: torch.mul(h.detach(), 3, out=h.detach()), lambda h: h + 2 * h.detach()),
        "a list": (lambda h: torch._foreach_mul_([h], 3), lambda h: 3 * h),
        "set": (
            lambda h: h.__setitem__((slice(None), 0), 5.0),
            lambda h: torch.cat([0 * h[:, :1] + 5, h[:, 1:]], 1),
        ),
    }.values(),
    ids=["a view", "out=", "a list", "set"],
)
def test_forms_of_writing(write, result):
    x = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    h = x * 2
    number = (h.square() + result(h).square()).sum()
    (gradient,) = torch.autograd.grad(number, x)
    torch.testing.assert_close(GradientTimesInput()(Forms(write), x.detach()), (gradient * x).detach())
