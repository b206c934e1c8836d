"""Windows that are cut out or laid side by side, and repeated entries are moves, however written."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from two_layers import METHODS

from rnnx_lightning.explain import LRP, Epsilon


def cut(h):
    """Windows of 2 x 2, one after another, in the order of `F.unfold`: (B, windows, 12)."""
    return h.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unfolded(h):
    return F.unfold(h, 2, stride=2)


WAYS = {
    "unfold": (lambda h: unfolded(h).mT, cut),
    "unfold with padding": (
        lambda h: F.unfold(h, 2, stride=2, padding=1).mT,
        lambda h: cut(F.pad(h, (1, 1, 1, 1))),
    ),
    "unfold, overlapping": (
        lambda h: F.unfold(h, 2).mT,
        lambda h: h.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2),
    ),
    "fold": (lambda h: cut(F.fold(unfolded(h), 4, 2, stride=2)), cut),
    "fold, overlapping, overwritten": (
        lambda h: cut(F.fold(F.unfold(h, 2), 4, 2).div_(4)),
        lambda h: cut(F.fold(F.unfold(h, 2), 4, 2) / 4),
    ),
    "nearest": (
        lambda h: cut(F.interpolate(h, scale_factor=2)),
        lambda h: cut(h.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    ),
    "nearest, exact, to a size": (
        lambda h: cut(F.interpolate(h, size=(8, 4), mode="nearest-exact")),
        lambda h: cut(h.repeat_interleave(2, 2)),
    ),
}


class Network(nn.Module):
    def __init__(self, move, reads_pixels):
        super().__init__()
        torch.manual_seed(0)
        self.move, self.reads_pixels = move, reads_pixels
        self.conv, self.hidden, self.out = nn.Conv2d(3, 3, 1), nn.Linear(12, 6), nn.Linear(6, 2)
        with torch.no_grad():
            self.out.weight.abs_()  # the logit is positive

    def forward(self, x):
        h = x if self.reads_pixels else self.conv(x).tanh()
        return self.out(self.hidden(self.move(h)).relu().mean(1)) + 1


@pytest.mark.parametrize("reads_pixels", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", METHODS)
def test_one_function_has_one_relevance(name, way, reads_pixels):
    torch.manual_seed(1)
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64) * 2 - 1
    one, other = (Network(move, reads_pixels).double() for move in WAYS[way])
    torch.testing.assert_close(one(x), other(x))
    relevance, expected = (METHODS[name]()(model, x, 0) for model in (one, other))
    assert bool(expected.any())
    torch.testing.assert_close(relevance, expected)


@pytest.mark.parametrize("way", WAYS)
def test_with_a_graph(way):
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64) * 2 - 1
    one, other = (Network(move, False).double() for move in WAYS[way])
    relevance = LRP(Epsilon(0.1), create_graph=True)(one, x, 0)
    torch.testing.assert_close(relevance.detach(), LRP(Epsilon(0.1))(other, x, 0))
