"""A state that is kept in one tensor, or in a buffer, has the relevance that it has without it."""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, UnexplainableError, ZBox, ZPlus

METHODS = {
    "epsilon": Composite(Epsilon(0.01)),
    "spread": Composite(Epsilon(0.01), bias="spread"),
    "z+": Composite(ZPlus(), pixels=ZBox(-5, 5)),
    "alpha-beta": Composite(AlphaBeta(1.5, 0.5)),
    "gamma": Composite(Gamma(0.25)),
}
BATCH, STEPS, UNITS = 3, 9, 4


class Plain(nn.Module):
    """An LSTM by hand; `put` keeps (h, c) of a step, and `get` reads them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.gates, self.out = nn.Linear(3 + UNITS, 4 * UNITS), nn.Linear(UNITS, 3)
        self.double()

    def start(self, zeros):
        return zeros, zeros

    def put(self, state, t, h, c):
        return h, c

    def get(self, state, t):
        return state

    def forward(self, x):
        state = self.start(x.new_zeros(len(x), UNITS))
        for t, step in enumerate(x.unbind(1)):
            h, c = self.get(state, t)
            i, f, g, o = self.activated(self.gates(torch.cat([step, h], 1)))
            c = f * c + i * g
            state = self.put(state, t, o * c.tanh(), c)
        return self.out(self.get(state, STEPS)[0])

    def activated(self, gates):
        i, f, g, o = gates.chunk(4, 1)
        return i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()


class Stacked(Plain):
    def start(self, zeros):
        return torch.stack([zeros, zeros])

    def put(self, state, t, h, c):
        return torch.stack([h, c])

    def get(self, state, t):
        return state.view(2, -1, UNITS).unbind(0)


class Joined(Plain):
    def start(self, zeros):
        return torch.cat([zeros, zeros], 1)

    def put(self, state, t, h, c):
        return torch.cat([h, c], 1)

    def get(self, state, t):
        return state.chunk(2, 1)


class Sliced(Joined):
    def get(self, state, t):
        return state[:, :UNITS], state[..., UNITS:]


class Overwritten(Plain):
    """One buffer, first full of something else."""

    def start(self, zeros):
        state = torch.full((BATCH, 2, UNITS), 7.0, dtype=zeros.dtype)
        state[:] = 0
        return state

    def put(self, state, t, h, c):
        state[:, 0] = h
        state[:, 1:2] = c.unsqueeze(1)
        return state

    def get(self, state, t):
        return state[:, 0], state.view(BATCH, -1)[:, UNITS:]


class Buffers(Plain):
    """A buffer of all steps for each; as `torch.empty`, they hold something before."""

    def start(self, zeros):
        states = (
            torch.full((STEPS + 1, BATCH, UNITS), 7.0, dtype=zeros.dtype),
            torch.full((BATCH, STEPS + 1, UNITS), 7.0, dtype=zeros.dtype),
        )
        states[0][0], states[1][:, 0] = 0, 0
        return states

    def put(self, state, t, h, c):
        state[0][t + 1], state[1][:, t + 1] = h, c
        return state

    def get(self, state, t):
        return state[0][t], state[1][:, t]


class Together(Plain):
    """Two gates are activated at once, and the activations are joined."""

    def activated(self, gates):
        i_and_f, g, o = gates.split([2 * UNITS, UNITS, UNITS], 1)
        return torch.cat([i_and_f.sigmoid(), g.tanh(), o.sigmoid()], 1).chunk(4, 1)


class TogetherInPlace(Plain):
    def activated(self, gates):
        gates[:, : 2 * UNITS].sigmoid_()
        gates[:, 2 * UNITS : 3 * UNITS] = gates[:, 2 * UNITS : 3 * UNITS].tanh()
        gates[:, 3 * UNITS :].sigmoid_()
        return gates[:, :UNITS], *gates[:, UNITS:].chunk(3, 1)


class Interleaved(Plain):
    """The two gates of a unit lie side by side; what is joined is read transposed, too."""

    def activated(self, gates):
        i, f, g, o = gates.view(-1, 4, UNITS).unbind(1)
        pairs = torch.cat([torch.stack([i, f], 2).sigmoid(), torch.stack([g, g], 2).tanh()], 1)
        return pairs[:, :UNITS, 0], pairs[:, :UNITS, 1], pairs[:, UNITS:, :1].mT.squeeze(1), o.sigmoid()


class Turned(Plain):
    """Gates and signals are read in another order than they were joined in."""

    def activated(self, gates):
        i, f, g, o = gates.view(-1, 4, UNITS).unbind(1)
        pairs = torch.cat([torch.stack([i, f], 2).sigmoid(), torch.stack([g, g], 2).tanh()], 1).mT
        return *pairs[:, :, :UNITS].unbind(1), pairs[:, :, UNITS:].unbind(1)[0], o.sigmoid()


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(BATCH, STEPS, 3, dtype=torch.float64)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("how", METHODS)
@pytest.mark.parametrize("network", [Stacked, Joined, Sliced, Overwritten, Buffers])
def test_a_state_may_be_kept_in_one_tensor(network, how, create_graph, x):
    method = LRP(METHODS[how], start="logit", create_graph=create_graph)
    torch.testing.assert_close(method(network(), x, 1), method(Plain(), x, 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("how", METHODS)
@pytest.mark.parametrize("network", [Together, TogetherInPlace, Interleaved, Turned])
def test_gates_may_be_a_part_of_one_tensor_with_signals(network, how, create_graph, x):
    method = LRP(METHODS[how], start="logit", create_graph=create_graph)
    torch.testing.assert_close(method(network(), x, 1), method(Plain(), x, 1), rtol=1e-9, atol=1e-12)


def test_the_relevance_of_a_layer_that_joins_is_all_of_it(x):
    class Join(nn.Module):
        def forward(self, one, two):
            return torch.cat([one, two], 1)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(4)
            self.read, self.join = nn.Linear(3, UNITS).double(), Join()

        def forward(self, x):
            one, two = self.join(self.read(x[:, 0]), self.read(x[:, 1])).chunk(2, 1)
            return one - 2 * two

    for create_graph in (False, True):
        method = LRP(Epsilon(0), create_graph=create_graph)
        explanation = method.explain(Network(), x, 1, layers=["join"])
        total = explanation.layers["join"][0].sum(1)
        torch.testing.assert_close(total, Network()(x)[:, 1])
        torch.testing.assert_close(explanation.relevance, method(Network(), x, 1))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("read_too", [False, True])
def test_the_relevance_of_a_layer_that_joins_sums_and_units(read_too, create_graph, x):
    """What is made of its output is a sum that its sums are merged with. LRP-0 of a linear map: gradient times value."""

    class Join(nn.Module):
        def forward(self, one, two):
            return torch.cat([one.relu(), two], 1)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(4)
            self.read, self.join = nn.Linear(3, UNITS).double(), Join()
            self.out = nn.Linear(2 * UNITS, 3, bias=False).double()

        def after(self, both):
            summed = self.out(2 * both + both.flip(1))
            return summed + self.out(both) if read_too else summed

        def forward(self, x):
            return self.after(self.join(self.read(x[:, 0]), self.read(x[:, 1])))

    model = Network()
    explanation = LRP(Epsilon(0), create_graph=create_graph).explain(model, x, 1, layers=["join"])
    both = model.join(model.read(x[:, 0]), model.read(x[:, 1])).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.after(both)[:, 1].sum(), both)
    torch.testing.assert_close(explanation.layers["join"][0].detach(), (gradient * both).detach())


def test_a_part_that_was_overwritten_is_not_what_it_was(x):
    """Under LRP-0 it does not matter how sums are merged."""

    class Network(nn.Module):
        def __init__(self, apart):
            super().__init__()
            torch.manual_seed(3)
            self.read, self.apart = nn.Linear(3, 6).double(), apart

        def forward(self, x):
            h, more = self.read(x[:, 0]), self.read(x[:, 1]).relu()
            if self.apart:
                kept = torch.ones_like(h)
                kept[0, 4] = 0
                return torch.cat([h[:, :2], more[:, :2], h[:, 4:]], 1) - 0.5 * (h.tanh() * kept + (1 - kept))
            both = torch.cat([h, h.tanh()], 1)
            both[:, 2:4] = more[:, :2]
            both[0, 10] = 1.0
            return both[:, :6] - 0.5 * both[:, 6:]

    method = LRP(Epsilon(0))
    for target in range(6):
        torch.testing.assert_close(method(Network(False), x, target), method(Network(True), x, target))


def test_a_gate_in_one_tensor_with_signals_is_a_gate(x):
    class Gated(nn.Module):
        def __init__(self, joined):
            super().__init__()
            torch.manual_seed(2)
            self.read, self.joined = nn.Linear(3, 8).double(), joined

        def forward(self, x):
            signal, gate = self.read(x[:, 0]).chunk(2, 1)
            gate = gate.exp()
            if self.joined:
                signal, gate = torch.stack([signal, gate]).unbind(0)
            return signal / (1 + gate)

    method = LRP(Epsilon(0.01))
    torch.testing.assert_close(method(Gated(True), x, 1), method(Gated(False), x, 1))


def test_an_output_that_is_not_explained_is_not_refused(x):
    """A mean and a deviation in one tensor: there is no rule for the deviation, and none is needed for the mean."""

    class Forecast(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = nn.Linear(3, 2).double()

        def forward(self, x):
            mean, spread = self.read(x[:, 0]).chunk(2, 1)
            return torch.cat([mean, spread.exp() + 1], 1)

    model, method = Forecast(), LRP(Epsilon(0))
    mean = nn.Sequential(nn.Flatten(), nn.Linear(STEPS * 3, 1)).double()
    with torch.no_grad():
        mean[1].weight.zero_()[0, :3] = model.read.weight[0]
        mean[1].bias.copy_(model.read.bias[:1])
    torch.testing.assert_close(method(model, x, 0), method(mean, x, 0))
    with pytest.raises(UnexplainableError, match="exp"):
        method(model, x, 1)


class Cell(nn.Module):
    """Keeps (h, c) in one tensor, which is its output."""

    def __init__(self, joined):
        super().__init__()
        torch.manual_seed(1)
        self.gates, self.joined = nn.Linear(3 + UNITS, 4 * UNITS).double(), joined
        self.hidden, self.memory = nn.Identity(), nn.Identity()

    def forward(self, step, state):
        h, c = state.chunk(2, 1) if self.joined else state
        i, f, g, o = self.gates(torch.cat([step, h], 1)).chunk(4, 1)
        c = self.memory(f.sigmoid() * c + i.sigmoid() * g.tanh())
        h = self.hidden(o.sigmoid() * c.tanh())
        return torch.cat([h, c], 1) if self.joined else (h, c)


class Celled(nn.Module):
    def __init__(self, joined):
        super().__init__()
        self.cell = Cell(joined)
        torch.manual_seed(2)
        self.out = nn.Linear(2 * UNITS, 3).double()

    def forward(self, x):
        zeros = x.new_zeros(len(x), UNITS)
        state = torch.cat([zeros, zeros], 1) if self.cell.joined else (zeros, zeros)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.out(state if self.cell.joined else torch.cat(state, 1))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("how", METHODS)
def test_asking_for_inner_layers_changes_nothing(how, create_graph, x):
    """A joined tensor has the relevance of its parts, those that were read back included."""
    method = LRP(METHODS[how], start="logit", create_graph=create_graph)
    joined, apart = Celled(True), Celled(False)
    expected = method.explain(apart, x, 1, layers=["cell.hidden", "cell.memory"])
    torch.testing.assert_close(method(joined, x, 1), expected.relevance, rtol=1e-9, atol=1e-12)
    found = method.explain(joined, x, 1, layers=["cell", "cell.hidden", "cell.memory"])
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-9, atol=1e-12)
    for name in ("cell.hidden", "cell.memory"):
        torch.testing.assert_close(found.layers[name], expected.layers[name], rtol=1e-9, atol=1e-12)
    for state, hidden, memory in zip(
        *(found.layers[name] for name in ("cell", "cell.hidden", "cell.memory")), strict=True
    ):
        own, kept = state.chunk(2, 1)
        torch.testing.assert_close(own, hidden, rtol=1e-9, atol=1e-12)
        if how not in ("epsilon", "z+"):  # these lose some of what h hands to c
            torch.testing.assert_close(own + kept, memory, rtol=1e-9, atol=1e-12)
