"""What a network keeps between calls is as it was, and every explanation starts from the same."""

import copy
from collections import deque

import pytest
import torch
from readers import assert_equal
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    DeepTaylor,
    Epsilon,
    GradientTimesInput,
    GuidedBackprop,
    InChunks,
    IntegratedGradients,
    Sensitivity,
    SmoothGrad,
    ZPlus,
)

METHODS = {
    "epsilon": lambda: LRP(Epsilon(1e-3)),
    "z+": lambda: LRP(ZPlus()),
    "deep Taylor": lambda: DeepTaylor(-5, 5),
    "gradient x input": GradientTimesInput,
    "sensitivity": Sensitivity,
    "guided": GuidedBackprop,
    "integrated": lambda: IntegratedGradients(0.0, steps=8),
    "smooth": lambda: SmoothGrad(samples=2),
}


class Keeps(nn.Module):
    """h <- tanh(W x + U h), kept from call to call in one of several ways."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way, self.calls = way, 0
        self.x2h, self.h2h, self.out = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.cell = nn.LSTM(4, 3, batch_first=True)
        self.seen = []
        self.double()
        start = torch.zeros(1, 3, dtype=torch.float64)
        if way == "buffer":
            self.register_buffer("h", start)
        elif way in ("dictionary", "list", "fused"):
            self.state = {"dictionary": {"h": start, "steps": 0}, "list": [start], "fused": None}[way]
        else:
            self.h = None if way == "none at first" else start

    def forward(self, x):
        self.calls += 1
        if self.way == "fused":
            output, state = self.cell(x[:, None], self.state)
            self.state = tuple(s.detach() for s in state)
            return self.out(output[:, -1])
        old = {"dictionary": lambda: self.state["h"], "list": lambda: self.state[0]}.get(
            self.way, lambda: self.h
        )()
        total = self.x2h(x) if old is None else self.x2h(x) + self.h2h(old.expand(len(x), -1))
        h = torch.tanh(total)
        kept = h[:1] if self.way == "with its graph" else h[:1].detach()
        if self.way == "buffer":
            self.h.copy_(kept)
        elif self.way == "dictionary":
            self.state["h"] = kept
            self.state["steps"] += 1
        elif self.way == "list":
            self.state[0] = kept
        else:
            self.h = kept
        if self.way == "appended":
            self.seen.append(kept)
        return self.out(h)


WAYS = ["detached", "with its graph", "none at first", "buffer", "dictionary", "list", "appended", "fused"]


def tensors(model):
    """All that the network keeps, as objects and as values."""
    state = getattr(model, "state", None)
    held = [getattr(model, "h", None), state, *model.seen]
    if isinstance(state, dict | list | tuple):
        held += state.values() if isinstance(state, dict) else state
    return held, [value.clone() if isinstance(value, torch.Tensor) else value for value in held]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_the_state_is_put_back(name, way):
    model, x, method = Keeps(way), torch.randn(3, 4, dtype=torch.float64), METHODS[name]()
    with torch.no_grad():
        model(torch.randn(3, 4, dtype=torch.float64))  # it has been in use
    (objects, values), calls = tensors(model), model.calls
    seed = torch.random.get_rng_state()
    first = method(model, x, 1)
    torch.random.set_rng_state(seed)
    after, after_values = tensors(model)
    assert len(after) == len(objects)
    assert model.calls == calls
    for old, new, old_value, new_value in zip(objects, after, values, after_values, strict=True):
        if isinstance(old, torch.Tensor):
            assert type(new) is torch.Tensor
            assert torch.equal(old_value, new_value)
            assert not new.requires_grad
        else:
            assert type(new) is type(old)
    assert torch.equal(method(model, x, 1), first)
    assert not any(vars(tensor) for tensor in (*model.parameters(), *model.buffers()))
    model(x)  # and it still runs


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", [1, None])
def test_integrated_gradients_are_complete(way, target):
    """Each of their passes starts from the state as it was, not from what the pass before it left."""
    model, x = Keeps(way), torch.randn(3, 4, dtype=torch.float64)
    with torch.no_grad():
        model(torch.randn(3, 4, dtype=torch.float64))
    relevance = IntegratedGradients(0.0, steps=200)(model, x, target)
    with torch.no_grad():
        logits, start = copy.deepcopy(model)(x), copy.deepcopy(model)(torch.zeros_like(x))
    classes = torch.full((3, 1), target) if target is not None else logits.argmax(1, keepdim=True)
    difference = (logits - start).gather(1, classes).squeeze(1)
    torch.testing.assert_close(relevance.sum(1), difference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", ["detached", "buffer", "list"])
def test_chunks_start_from_the_same_state(way):
    model, x = Keeps(way), torch.randn(4, 4, dtype=torch.float64)
    with torch.no_grad():
        model(torch.randn(1, 4, dtype=torch.float64))
    method = LRP(Epsilon(1e-3))
    assert_equal(InChunks(method, 2)(model, x, 1), method(model, x, 1), 1e-10)


def test_the_state_is_put_back_after_a_refusal():
    class Refused(Keeps):
        def forward(self, x):
            return super().forward(x).cumprod(1)

    model = Refused("detached")
    before = model.h
    with pytest.raises(Exception, match="cumprod"):
        LRP()(model, torch.randn(3, 4, dtype=torch.float64), 0)
    assert model.h is before
    assert not model.h.requires_grad


class Shares(nn.Module):
    """Two modules hold one list, with a tensor that is overwritten in place; a deque and a nested dict, too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.out = nn.Linear(4, 2).double()
        self.sub = nn.Module()
        self.last = torch.zeros(3, 4, dtype=torch.float64)
        self.memory = self.sub.memory = [self.last]
        self.recent = deque([0], maxlen=2)
        self.cache = {"keys": [], "calls": {"n": 0}}

    def forward(self, x):
        assert self.memory is self.sub.memory
        h = x + 0.5 * self.memory[0]
        self.memory[0].copy_(h.detach())
        self.memory.append(h)
        self.recent.append(1)
        self.cache["keys"].append(h)
        self.cache["calls"]["n"] += 1
        return self.out(h)


@pytest.mark.parametrize("how", METHODS)
def test_what_modules_share_stays_shared_and_as_it_was(how):
    model, x = Shares(), torch.rand(3, 4, dtype=torch.float64)
    memory, last = model.memory, model.last
    first = METHODS[how]()(model, x, 0)
    torch.testing.assert_close(METHODS[how]()(model, x, 0), first, rtol=0, atol=0)
    assert model.memory is model.sub.memory is memory
    assert len(memory) == 1
    assert memory[0] is last
    assert not last.any()
    assert list(model.recent) == [0]
    assert model.cache == {"keys": [], "calls": {"n": 0}}
    assert model._buffers is model.__dict__["_buffers"]
