"""Pixels of 8 bits are pixels, as if they were floating-point numbers; other whole numbers are tokens."""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    Composite,
    DeepTaylor,
    Epsilon,
    Flat,
    PixelRangeWarning,
    Sensitivity,
    UnexplainableError,
    WSquare,
    ZBox,
    ZPlus,
)

METHODS = {
    "deep Taylor": DeepTaylor(0, 255),
    "bounds of the data": DeepTaylor("data", "data"),
    "w2": LRP(Composite(ZPlus(), pixels=WSquare()), start="logit"),
    "flat": LRP(Composite(ZPlus(), pixels=Flat()), start="logit"),
    "spread": LRP(Composite(Epsilon(1e-6), pixels=ZBox(0, 255), bias="spread"), start="logit"),
    "epsilon": LRP(Epsilon(1e-6), start="logit"),
}


class Pictures(nn.Module):
    """Logits from pixels, which it normalises."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.out = nn.Conv2d(2, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x):
        x = (x.double() / 255 - torch.tensor([0.4, 0.6]).view(2, 1, 1)) / 0.3
        return self.out(self.conv(x).relu().mean((2, 3))) + 1


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randint(0, 256, (3, 2, 8, 8), dtype=torch.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_bytes_are_pixels(method, x):
    model = Pictures().double()
    expected = METHODS[method](model, x.double(), 1)
    assert expected.any()
    torch.testing.assert_close(METHODS[method](model, x, 1), expected, rtol=1e-9, atol=1e-12)


def test_bounds_are_compared(x):
    with pytest.warns(PixelRangeWarning, match="range from 0 to 255"):
        DeepTaylor(-1, 1)(Pictures().double(), x, 1)


def test_methods_that_need_a_gradient_ask_for_numbers(x):
    with pytest.raises(UnexplainableError, match=r"If they are tokens, use LRP\. .* x\.float\(\)"):
        Sensitivity()(Pictures().double(), x, 1)
