"""Networks that run with stacked parameters, under `torch.vmap`, have the relevance of a loop over them."""

import pytest
import torch
from readers import assert_equal
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from rnnx_lightning.explain import LRP, Composite, DeepTaylor, Epsilon, GradientTimesInput, GuidedBackprop


class Cell(nn.Module):
    """x_t, one after the other; a gated state by ordinary layers, as vmap knows no nn.LSTM."""

    def __init__(self):
        super().__init__()
        self.drive, self.state = nn.Linear(4, 6), nn.Linear(6, 6)
        self.gate, self.out = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            new = torch.relu(self.drive(x[:, t]) + self.state(h))
            h = h + torch.sigmoid(self.gate(x[:, t])) * (new - h)
        return self.out(h)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.norm, self.out = nn.Conv1d(5, 6, 3), nn.BatchNorm1d(6), nn.Linear(12, 3)

    def forward(self, x):
        return self.out(torch.relu(self.norm(self.read(x))).flatten(1))


def state(member):
    return {**dict(member.named_parameters()), **dict(member.named_buffers())}


WAYS = {
    "loop": lambda members, x: torch.stack([member(x) for member in members]),
    "other parameters": lambda members, x: torch.stack(
        [functional_call(members[0], state(member), (x,)) for member in members]
    ),
    "vmap": lambda members, x: vmap(lambda *own: functional_call(members[0], own, (x,)))(
        *stack_module_state(list(members))
    ),
    "vmap in chunks": lambda members, x: vmap(lambda *own: functional_call(members[0], own, (x,)), chunk_size=2)(
        *stack_module_state(list(members))
    ),
    "vmap of examples": lambda members, x: vmap(
        lambda one: torch.stack([member(one[None])[0] for member in members]), out_dims=1
    )(x),
    "checkpoints": lambda members, x: torch.stack(
        [checkpoint(member, x, use_reentrant=False) for member in members]
    ),
}
METHODS = {
    "epsilon": LRP(Epsilon(1e-6)),
    "alpha-beta": LRP(alpha=2, beta=1, start="logit"),
    "spread": LRP(Composite(Epsilon(1e-6), bias="spread")),
    "deep Taylor": DeepTaylor(-4, 4),
    "with a graph": LRP(Epsilon(1e-6), create_graph=True),
    "guided": GuidedBackprop(),
    "gates held": GradientTimesInput(gates="constant"),
}


class Ensemble(nn.Module):
    def __init__(self, kind, way):
        super().__init__()
        torch.manual_seed(0)
        self.members, self.way = nn.ModuleList([kind() for _ in range(3)]).double().eval(), WAYS[way]

    def forward(self, x):
        return self.way(self.members, x).mean(0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Cell, Convolution])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "loop"])
def test_the_way_of_an_ensemble_does_not_matter(way, kind, method):
    x = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, other = (METHODS[method](Ensemble(kind, each), x, 1) for each in (way, "loop"))
    assert_equal(one, other, 1e-8)
