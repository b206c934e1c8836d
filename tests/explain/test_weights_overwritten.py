"""A network that overwrites its own weights is explained with those that each operation has read."""

import copy

import pytest
import torch
from readers import assert_equal
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    Composite,
    DeepTaylor,
    Epsilon,
    GradientTimesInput,
    InChunks,
    Sensitivity,
    ZPlus,
)


def by_data(weight, new):
    weight.data.copy_(new)


def without_graph(weight, new):
    with torch.no_grad():
        weight.copy_(new)


def replaced(weight, new):
    weight.data = new


def scaled_in_place(weight, new):
    weight.data.div_(weight.data / new)


CHANGES = [by_data, without_graph, replaced, scaled_in_place]
LAYERS = {
    "linear": lambda: (nn.Linear(4, 4), lambda layer, x: layer(x)),
    "product": lambda: (nn.Linear(4, 4), lambda layer, x: x @ layer.weight),
    "convolution": lambda: (nn.Conv1d(1, 1, 3, padding=1), lambda layer, x: layer(x[:, None])[:, 0]),
    "scale": lambda: (nn.LayerNorm(4), lambda layer, x: layer(x)),
}


class Learns(nn.Module):
    """Reads twice, with other weights the second time."""

    def __init__(self, make, change=None):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.read = make()
        self.layer.double()
        self.change = change
        nn.init.uniform_(self.layer.weight, 0.2, 1.0)
        self.second = copy.deepcopy(self.layer) if change is None else None
        if self.second is not None:
            self.second.weight.data = self.layer.weight.data.square()
        self.out = nn.Linear(4, 2)
        nn.init.ones_(self.out.bias)
        self.double()

    def forward(self, x):
        h = torch.relu(self.read(self.layer, x))
        if self.change is None:
            return self.out(self.read(self.second, h))
        start = self.layer.weight.detach().clone()
        self.change(self.layer.weight, start.square())
        y = self.out(self.read(self.layer, h))
        self.change(self.layer.weight, start)
        return y


METHODS = {
    "epsilon": LRP(Epsilon(1e-6)),
    "z+": LRP(ZPlus()),
    "spread": LRP(Composite(Epsilon(1e-6), bias="spread")),
    "deep Taylor": DeepTaylor(-3, 3),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", METHODS)
def test_each_call_counts_with_its_own_weights(method, layer, change):
    expected, model = Learns(LAYERS[layer]), Learns(LAYERS[layer], change)
    model.out.load_state_dict(expected.out.state_dict())
    x = torch.randn(3, 4, dtype=torch.float64)
    before, weight = {k: v.clone() for k, v in model.state_dict().items()}, model.layer.weight
    assert_equal(METHODS[method](model, x, 1), METHODS[method](expected, x, 1), 1e-10)
    assert model.layer.weight is weight
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Recurrent(nn.Module):
    """Reads a sequence twice; the second time, weights and start states are others."""

    def __init__(self, kind, ways, change=None):
        super().__init__()
        torch.manual_seed(0)
        self.change = change
        self.first = getattr(nn, kind)(4, 4 // ways, batch_first=True, bidirectional=ways == 2)
        self.out = nn.Linear(4, 2)
        self.double()
        self.start = torch.full((ways, 2, 4 // ways), 0.3, dtype=torch.float64)

    def forward(self, x):
        state = [self.start.clone() for _ in range(2 if isinstance(self.first, nn.LSTM) else 1)]
        module = self.first if self.change else copy.deepcopy(self.first)
        h, _ = self._read(module, x, state)
        before = [weight.detach().clone() for weight in module.parameters()]
        if self.change:
            for weight, old in zip(module.parameters(), before, strict=True):
                self.change(weight, old * 3)
            for part in state:
                part.mul_(3)
        else:
            module = copy.deepcopy(module)
            for weight in module.parameters():
                weight.data = weight.data * 3
            state = [part * 3 for part in state]
        h, _ = self._read(module, h, state)
        if self.change:
            for weight, old in zip(module.parameters(), before, strict=True):
                self.change(weight, old)
        return self.out(h.sum(1))

    @staticmethod
    def _read(module, x, state):
        return module(x, tuple(state) if len(state) == 2 else state[0])


@pytest.mark.parametrize("change", CHANGES[:3])
@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("method", [LRP(Epsilon(1e-6)), LRP(alpha=2, beta=1, start="logit")])
def test_a_recurrent_module_counts_with_its_own_weights_and_states(method, kind, ways, change):
    expected, model = Recurrent(kind, ways), Recurrent(kind, ways, change)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert_equal(method(model, x, 1), method(expected, x, 1), 1e-10)
    assert_equal(InChunks(method, 2, steps=2)(model, x, 1), method(expected, x, 1), 1e-10)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Constrained(nn.Module):
    """Limits its weights before it reads with them, as networks for EEG do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        self.layer.weight.data = torch.renorm(self.layer.weight.data, 2, 0, 0.1)
        return self.layer(x)


@pytest.mark.parametrize("method", [LRP(Epsilon(1e-6)), Sensitivity(), GradientTimesInput()])
def test_weights_that_are_limited_are_put_back(method):
    model, x = Constrained(), torch.randn(3, 4)
    before = model.layer.weight.detach().clone()
    relevance = method(model, x, 1)
    assert torch.equal(model.layer.weight, before)
    limited = nn.Linear(4, 2)
    limited.load_state_dict(model.layer.state_dict())
    limited.weight.data = torch.renorm(before, 2, 0, 0.1)
    assert_equal(relevance, method(limited, x, 1), 1e-6)
