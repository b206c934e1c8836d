"""A network may view a result as it lies in memory: explaining it does not change how results lie there."""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Epsilon, ZPlus

NORMS = {
    "layer norm": lambda: nn.LayerNorm(4),
    "RMS norm": lambda: nn.RMSNorm(4),
    "group norm": lambda: nn.GroupNorm(3, 6),
    "batch norm": lambda: nn.BatchNorm1d(6),
}


class Viewed(nn.Module):
    """A norm of a transposed tensor, which lies in another order than its argument."""

    def __init__(self, norm, view):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.out, self.view = nn.Conv1d(3, 4, 1), norm(), nn.Linear(24, 3), view

    def forward(self, x):  # (B, 3, 6)
        h = self.norm(self.conv(x).transpose(1, 2))
        return self.out(h.view(len(x), -1) if self.view else h.reshape(len(x), -1))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("rule", [Epsilon(1e-6), ZPlus(), AlphaBeta(2, 1)], ids=["epsilon", "z+", "alpha-beta"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_is_viewed(norm, rule, create_graph):
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    one, two = (Viewed(NORMS[norm], view).double().eval() for view in (True, False))
    expected = LRP(rule, start="logit")(two, x, 1)
    relevance = LRP(rule, start="logit", create_graph=create_graph)(one, x, 1)
    torch.testing.assert_close(relevance.detach(), expected)


@pytest.mark.parametrize("create_graph", [False, True])
def test_one_tensor_joined_with_nothing_is_viewed(create_graph):
    """`torch.cat` of a single tensor puts it in order."""

    class Joined(Viewed):
        def forward(self, x):
            h = torch.cat([self.norm(self.conv(x)).transpose(1, 2)], 1)
            return self.out(h.view(len(x), -1) if self.view else h.reshape(len(x), -1))

    x = torch.randn(4, 3, 6, dtype=torch.float64)
    one, two = (Joined(nn.Identity, view).double() for view in (True, False))
    relevance = LRP(Epsilon(1e-6), create_graph=create_graph)(one, x, 1)
    torch.testing.assert_close(relevance.detach(), LRP(Epsilon(1e-6))(two, x, 1))
