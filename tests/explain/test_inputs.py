"""What people hand to a method: containers of any kind, subclasses of tensors."""

from collections import UserDict
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.tv_tensors import Image

from rnnx_lightning.explain import LRP, Epsilon, GuidedBackprop, Sensitivity

METHODS = {"epsilon": LRP(Epsilon()), "SA": Sensitivity(), "GB": GuidedBackprop()}


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.out = nn.Linear(3, 4), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, left, right):
        return self.out(torch.relu(self.one(left) + self.two(right)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Pair, UserDict])
def test_containers(kind, method):
    left, right = torch.rand(2, 3), torch.rand(2, 5)
    expected = METHODS[method](TwoInputs(), (left, right), 1)
    if kind is Pair:
        relevance = METHODS[method](TwoInputs(), Pair(left, right), 1)
        assert isinstance(relevance, Pair)
    else:
        found = METHODS[method](TwoInputs(), UserDict(left=left, right=right), 1)
        relevance = found["left"], found["right"]
    for one, other in zip(relevance, expected, strict=True):
        assert torch.equal(one, other)


class Noted(Tensor):
    """As other packages have them, with notes on the data."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "wrap", [Image, nn.Parameter, lambda x: x.as_subclass(Noted)], ids=["Image", "Parameter", "Noted"]
)
def test_subclasses_of_tensors(wrap, method):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    x = torch.rand(2, 1, 6, 6)
    relevance = METHODS[method](model, wrap(x), 1)
    assert type(relevance) is Tensor
    assert torch.equal(relevance, METHODS[method](model, x, 1))
