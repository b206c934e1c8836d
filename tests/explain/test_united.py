"""A state that moves towards another: h + z (n - h) is (1 - z) h + z n, in whatever way it is written."""

import naive
import numpy as np
import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

METHODS = {
    "z+": Composite(ZPlus()),
    "deep Taylor": Composite(ZPlus(), pixels=ZBox(-4, 4)),
    "alpha-beta": Composite(AlphaBeta(1.5, 0.5)),
    "gamma": Composite(Gamma(0.25)),
    "epsilon": Composite(Epsilon(0.01)),
    "spread": Composite(Epsilon(0.01), bias="spread"),
    "z+, spread": Composite(ZPlus(), bias="spread"),
    "ignore": Composite(Gamma(0.25), bias="ignore"),
}
SPELLINGS = {
    "h + z (n - h)": lambda h, n, z: h + z * (n - h),
    "h + (n - h) z": lambda h, n, z: h + (n - h) * z,
    "h - z (h - n)": lambda h, n, z: h - z * (h - n),
    "h + z (-h + n)": lambda h, n, z: h + z * (-h + n),
    "z (n - h) + h": lambda h, n, z: z * (n - h) + h,
    "n + (1 - z) (h - n)": lambda h, n, z: n + (1 - z) * (h - n),
    "h + z n - z h": lambda h, n, z: h + z * n - z * h,
    "h - z h + z n": lambda h, n, z: h - z * h + z * n,
    "addcmul": lambda h, n, z: torch.addcmul(h, torch.as_tensor(z, dtype=torch.float64).expand(h.shape), n - h),
    "lerp": lambda h, n, z: torch.lerp(h, n, z),
    "in place": lambda h, n, z: h.clone().add_(z * (n - h)),
    "in place, subtracted": lambda h, n, z: h.clone().sub_((h - n) * z),
}


class Recurrent(nn.Module):
    """Moves by a gate, or by a constant: a leaky integrator."""

    def __init__(self, move, speed, squash=torch.tanh):
        super().__init__()
        torch.manual_seed(0)
        self.move, self.speed, self.squash = move, speed, squash
        self.x, self.h, self.z, self.out = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(3, 5), nn.Linear(5, 2)
        with torch.no_grad():
            self.out.weight.abs_()  # something speaks for it
        self.double()

    def forward(self, x):
        h = x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            n = self.squash(self.x(step) + self.h(h))
            h = self.move(h, n, self.z(step).sigmoid() if self.speed is None else self.speed)
        return self.out(h.relu()) + 1


@pytest.mark.parametrize("speed", [None, 0.3, 1.7])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", METHODS)
def test_a_moving_state_has_one_relevance(name, spelling, speed):
    x = torch.randn(3, 5, 3, dtype=torch.float64)
    method = LRP(METHODS[name], start="logit")
    expected = method(Recurrent(lambda h, n, z: (1 - z) * h + z * n, speed), x, 0)
    assert bool(expected.any())
    torch.testing.assert_close(method(Recurrent(SPELLINGS[spelling], speed), x, 0), expected)


@pytest.mark.parametrize("speed", [None, 0.3])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("pixels", [Flat(), WSquare(), ZBox(-4, 4)])
@pytest.mark.parametrize("rule", [Epsilon(0.01), AlphaBeta(1.5, 0.5), Gamma(0.25)])
def test_a_move_towards_a_layer_that_reads_pixels(rule, pixels, spelling, speed):
    x = torch.randn(3, 3, 3, dtype=torch.float64)
    method = LRP(Composite(rule, pixels=pixels), start="logit")
    expected = method(Recurrent(lambda h, n, z: (1 - z) * h + z * n, speed, nn.Identity()), x, 0)
    torch.testing.assert_close(method(Recurrent(SPELLINGS[spelling], speed, nn.Identity()), x, 0), expected)


READ_TWICE = {
    "indexed": lambda s, t: s[:, t],
    "sliced": lambda s, t: s[:, t : t + 1].squeeze(1),
    "unbound": lambda s, t: s.unbind(1)[t],
    "transposed": lambda s, t: s.transpose(0, 1)[t],
}


class ReadTwice(nn.Module):
    """The state that it moves to is a view, which is made for each of its two occurrences, or once."""

    def __init__(self, view, move, once, states):
        super().__init__()
        torch.manual_seed(0)
        self.view, self.move, self.once, self.states = view, move, once, states
        self.x, self.z, self.out = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.double()

    def forward(self, x):
        states, gates = self.states(self.x(x)), self.z(x).sigmoid()
        h = x.new_zeros(len(x), 3)
        for t in range(x.shape[1]):
            n = self.view(states, t)
            h = self.move(h, n, n if self.once else self.view(states, t), self.view(gates, t))
        return self.out(h.relu())


MOVES = {
    "n + z (h - n)": lambda h, n, m, z: n + z * (h - m),
    "silu": lambda h, n, m, z: z * h + n * m.sigmoid(),
    "leaky": lambda h, n, m, z: z * h + torch.where(n > 0, m, 0.1 * m),
    "relu": lambda h, n, m, z: z * h + n * (m > 0),
    "square": lambda h, n, m, z: z * h + n * m,
}


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("states", [torch.tanh, nn.Identity()])
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("view", READ_TWICE)
def test_views_that_are_made_twice(view, move, states, graph):
    x = torch.randn(3, 5, 3, dtype=torch.float64)
    for name in ("z+", "deep Taylor", "alpha-beta", "spread"):
        method = LRP(METHODS[name], start="logit", create_graph=graph)
        ours, expected = (
            method(ReadTwice(READ_TWICE[view], MOVES[move], once, states), x, 0) for once in (False, True)
        )
        assert bool(expected.any())
        torch.testing.assert_close(ours, expected)


def test_views_that_are_made_twice_as_outputs_of_layers():
    """Each layer has its own relevance."""
    heads = nn.ModuleList(nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False)) for _ in range(2)).double()

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = heads

        def forward(self, x):
            h = x * 1
            return self.heads[0](h) + self.heads[1](h)

    x = torch.randn(2, 2, 3, dtype=torch.float64)
    layers = [f"heads.{i}.0" for i in range(2)]
    found = LRP(Epsilon(0)).explain(Heads(), x, 0, layers=layers).layers
    for head, name in zip(heads, layers, strict=True):
        torch.testing.assert_close(found[name][0], x.flatten(1) * head[1].weight[0])


@pytest.mark.parametrize("speed", [None, 0.3])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", METHODS)
def test_a_state_that_moves_towards_pixels(name, spelling, speed):
    class Trace(nn.Module):
        def __init__(self, move):
            super().__init__()
            torch.manual_seed(0)
            self.move, self.z, self.out = move, nn.Linear(3, 3), nn.Linear(3, 2)
            with torch.no_grad():
                self.out.weight.abs_()  # something speaks for it
            self.double()

        def forward(self, x):
            h = x.new_zeros(len(x), 3)
            for step in x.unbind(1):
                h = self.move(h, step, self.z(step).sigmoid() if speed is None else speed)
            return self.out(h.relu())

    x = torch.randn(3, 4, 3, dtype=torch.float64)
    method = LRP(METHODS[name], start="logit")
    expected = method(Trace(lambda h, n, z: (1 - z) * h + z * n), x, 0)
    assert bool(expected.any())
    torch.testing.assert_close(method(Trace(SPELLINGS[spelling]), x, 0), expected)


@pytest.mark.parametrize("double", [lambda h: h + h, lambda h: h - -h, lambda h: h + 2.5 * h - 1.5 * h])
@pytest.mark.parametrize("inner", [lambda x: x, torch.tanh])
@pytest.mark.parametrize("name", METHODS)
def test_a_value_that_is_added_to_itself(name, inner, double):
    torch.manual_seed(0)
    out = nn.Linear(3, 2).double()

    class Doubled(nn.Module):
        def __init__(self, double):
            super().__init__()
            self.double_it, self.out = double, out

        def forward(self, x):
            return self.out(self.double_it(inner(x)))

    x = torch.randn(3, 3, dtype=torch.float64)
    method = LRP(METHODS[name], start="logit")
    torch.testing.assert_close(method(Doubled(double), x, 0), method(Doubled(lambda h: 2 * h), x, 0))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_with_a_graph(spelling):
    x = torch.randn(3, 5, 3, dtype=torch.float64)
    model = Recurrent(SPELLINGS[spelling], None)
    relevance = LRP(ZPlus(), start="logit", create_graph=True)(model, x, 0)
    torch.testing.assert_close(relevance.detach(), LRP(ZPlus(), start="logit")(model, x, 0))


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("rule", [ZPlus(), AlphaBeta(1.5, 0.5), Gamma(0.25)])
def test_one_move_by_the_book(rule, spelling):
    """Two activations; a sum has a contribution of each."""

    class Moved(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.one, self.two, self.seen = nn.Tanh(), nn.Tanh(), nn.ReLU()

        def forward(self, x):
            h, n = self.one(x[:, 0]), self.two(x[:, 1])
            return self.seen(SPELLINGS[spelling](h, n, 0.3)).sum(1)

    model = Moved()
    x = torch.randn(4, 2, 6, dtype=torch.float64)
    explanation = LRP(rule, start="logit").explain(model, x, layers=["one", "two", "seen"])
    h, n = x.tanh().unbind(1)
    weights = np.array([[0.7, 0.3]])
    for b in range(4):
        for unit in range(6):
            a = torch.stack([h[b, unit], n[b, unit]]).numpy()
            R, none = explanation.layers["seen"][0][b, unit].reshape(1).numpy(), np.zeros(1)
            match rule:
                case ZPlus():
                    expected = naive.z_plus(weights, a, none, R)
                case AlphaBeta():
                    expected = naive.alpha_beta(weights, a, none, R, rule.alpha, rule.beta)
                case _:
                    expected = naive.gamma_rule(weights, a, none, R, rule.gamma)
            ours = [explanation.layers[name][0][b, unit].item() for name in ("one", "two")]
            np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_long_sequences():
    """Two hundred moves give what the equation of torch's GRU gives."""
    x = torch.randn(2, 200, 3, dtype=torch.float64)
    one, other = (Recurrent(SPELLINGS[way], None) for way in ("h + z (n - h)", "lerp"))
    method = LRP(AlphaBeta(2, 1), start="logit")
    torch.testing.assert_close(method(one, x, 0), method(other, x, 0))


@pytest.mark.parametrize("name", METHODS)
def test_a_bias_that_is_added_on_both_sides(name):
    """The state has a bias, which is added by hand; so have both terms of what it moves by."""

    class Move(nn.Module):
        def __init__(self, by_hand):
            super().__init__()
            torch.manual_seed(0)
            self.by_hand = by_hand
            self.first, self.second, self.gate, self.out = (nn.Linear(4, 4) for _ in range(4))
            self.double()

        def _layer(self, layer, x):
            return x @ layer.weight.T + layer.bias if self.by_hand else layer(x)

        def forward(self, x):
            a = self._layer(self.first, x)
            h = self._layer(self.second, a) + a
            return self.out(h + self.gate(h).sigmoid() * (a - h)) + 1

    x, method = torch.randn(3, 4, dtype=torch.float64), LRP(METHODS[name], start="logit")
    expected = method(Move(by_hand=False), x, 0)
    assert bool(expected.any())
    torch.testing.assert_close(method(Move(by_hand=True), x, 0), expected)
