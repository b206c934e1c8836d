"""What is not needed for relevance is freed while the network still runs."""

import torch
from torch import nn

from benchmarks.measure import peak_bytes
from rnnx_lightning.explain import LRP, Epsilon

BATCH, UNITS, STEPS = 64, 32, 20
OF_A_STEP = BATCH * UNITS * STEPS * 4  # bytes of one float32 value of each step


class Gated(nn.Module):
    """Each step scales the state with the first of four gates, which come from one sigmoid."""

    def __init__(self):
        super().__init__()
        self.gates = nn.Linear(UNITS, 4 * UNITS)

    def forward(self, x):
        for _ in range(STEPS):
            x = x * self.gates(x).sigmoid().chunk(4, -1)[0]
        return x


class Recurrent(nn.Module):
    """Each step adds the outputs of two layers."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(UNITS, UNITS, bias=False), nn.Linear(UNITS, UNITS, bias=False)

    def forward(self, x):
        for _ in range(STEPS):
            x = torch.relu(self.one(x) + self.other(x))
        return x


def needed(network):
    """The peak memory of an explanation, in values of each step."""
    network.eval().requires_grad_(False)
    x = torch.rand(BATCH, UNITS)
    return peak_bytes(lambda: LRP(Epsilon(1e-6))(network, x, lambda y: y.sum(1)), x.device) / OF_A_STEP


def test_the_net_inputs_of_gates_are_freed():
    assert needed(Gated()) < 4  # the gate that is used, and the state


def test_the_terms_of_a_sum_are_freed():
    assert needed(Recurrent()) < 3  # the sum, and the state
