"""Networks with random graphs: values that are used twice, summed, cut, stacked, scaled and overwritten."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Epsilon, GradientTimesInput, ZPlus


class RandomGraph(nn.Module):
    """(B, 6) to (B, 3) by bias-free linear maps and operations that are linear or ReLU-like."""

    def __init__(self, seed, monotone=False):
        super().__init__()
        torch.manual_seed(seed)
        self.seed = seed
        self.maps = nn.ModuleList(nn.Linear(6, 6, bias=False) for _ in range(12))
        self.out = nn.Linear(6, 3, bias=False)
        self.operations = ["map", "map", "relu", "relu in place", "add", "scale", "cut", "stack", "unbind"]
        if not monotone:  # the rules for positive contributions refuse to swap signs
            self.operations += ["negate", "subtract", "leaky"]

    def forward(self, x):
        choose, maps, values = random.Random(self.seed), iter(self.maps), [x]
        for _ in range(14):
            kind = choose.choice(self.operations)
            a, b = choose.choice(values[-4:]), choose.choice(values[-4:])
            apply = next(maps, self.maps[0]) if "map" in kind or "place" in kind else None
            values.append(
                {
                    "map": lambda a, b, m: m(a),
                    "relu": lambda a, b, m: torch.relu(a),
                    "relu in place": lambda a, b, m: F.relu(m(a), inplace=True),
                    "add": lambda a, b, m: a + b,
                    "scale": lambda a, b, m: 0.7 * a,
                    "cut": lambda a, b, m: torch.cat([a[:, :2], b[:, 2:]], dim=1),
                    "stack": lambda a, b, m: torch.stack([a, b], dim=1).sum(dim=1),
                    "unbind": lambda a, b, m: sum(torch.stack([a, b, a], dim=1).unbind(1)[1:]),
                    "negate": lambda a, b, m: -a,
                    "subtract": lambda a, b, m: a - b,
                    "leaky": lambda a, b, m: F.leaky_relu(a, 0.1),
                }[kind](a, b, apply)
            )
        return self.out(torch.relu(values[-1] + self.maps[0](values[-3])) + values[-2])


@pytest.mark.parametrize("seed", range(60))
def test_epsilon_zero_is_gradient_times_input(seed):
    model, x = RandomGraph(seed).double(), torch.rand(5, 6, dtype=torch.float64) * 2 - 1
    target = torch.arange(5) % 3
    expected = GradientTimesInput()(model, x, target)
    torch.testing.assert_close(LRP(Epsilon(0))(model, x, target), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(2, 1)], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("seed", range(40))
def test_shortcuts_change_nothing(seed, rule):
    """All sums are made when the relevance of a layer is asked for."""
    model, x = RandomGraph(seed, monotone=True).double(), torch.rand(5, 6, dtype=torch.float64) * 2 - 1
    target = torch.arange(5) % 3
    expected = LRP(rule).explain(model, x, target, layers="maps.0").relevance
    torch.testing.assert_close(LRP(rule)(model, x, target), expected, rtol=1e-6, atol=1e-9)
