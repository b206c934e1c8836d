"""Gates as constants, against the same cells with their gates detached by hand."""

import pytest
import torch
import torch.nn.functional as F
from gated_cells import (
    CELLS,
    INPUTS,
    UNITS,
    Net,
    coupled_lstm,
    free,
    gru_by_lerp,
    held,
    relu_lstm,
    sigmoid_activations,
)
from torch import nn

from rnnx_lightning.architectures import GRU, LSTM, RGRU, RLSTM
from rnnx_lightning.explain import (
    GradientTimesInput,
    GuidedBackprop,
    IntegratedGradients,
    Sensitivity,
    SmoothGrad,
    UnexplainableError,
)


def plain_gradient(model, x, target):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, target].sum(), x)[0]


@pytest.fixture
def x():
    torch.manual_seed(2)
    return torch.randn(5, 6, INPUTS, dtype=torch.float64)


@pytest.mark.parametrize("state", ["zeros", "given"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_gates_are_as_if_detached(cell, state, x):
    expected = plain_gradient(Net(cell, state, held), x, 1)
    through = plain_gradient(Net(cell, state), x, 1)
    no_gate = cell is sigmoid_activations
    assert torch.allclose(expected, through) == no_gate
    model = Net(cell, state)
    torch.testing.assert_close(Sensitivity(gates="constant")(model, x, 1), expected**2)
    torch.testing.assert_close(Sensitivity()(model, x, 1), through**2)
    torch.testing.assert_close(GradientTimesInput(gates="constant")(model, x, 1), x * expected)


ADDED = {  # what adds a product, of a gate g, a signal s and what they are added to
    "addcmul": lambda g, s, base: torch.addcmul(base, g, s, value=0.5),
    "addcdiv": lambda g, s, base: torch.addcdiv(base, s, 1 + g),
    "addcdiv, of a constant": lambda g, s, base: torch.addcdiv(base, torch.linspace(1, 2, 6).double(), 1 + g),
    "addmm": lambda g, s, base: torch.addmm(base[0, :, :4], g[0, :, :4], s[0, :4, :4]) + base[:, :, :4],
    "addbmm": lambda g, s, base: torch.addbmm(base[0], g.mT, s).expand(5, -1, -1),
    "baddbmm": lambda g, s, base: torch.baddbmm(base, g.mT, s),
    "addmv": lambda g, s, base: torch.addmv(base[0, 0], g[0], s[0, 0])[None].expand(5, -1),
    "addr": lambda g, s, base: torch.addr(base[0], g[0, :, 0], s[0, 0])[None].expand(5, -1, -1),
}


@pytest.mark.parametrize("form", ADDED)
def test_gates_of_products_that_are_added(form, x):
    """A layer of 6 units, for the gates, the signals and the summands of 6 steps."""

    class Adds(nn.Module):
        def __init__(self, hold):
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.hold = nn.Linear(INPUTS, 18).double(), hold

        def forward(self, x):
            g, s, base = self.layer(x).chunk(3, -1)
            return ADDED[form](self.hold(torch.sigmoid(g)), s, base).flatten(1)

    expected = plain_gradient(Adds(held), x, 3)
    assert not torch.allclose(expected, plain_gradient(Adds(free), x, 3))
    torch.testing.assert_close(Sensitivity(gates="constant")(Adds(free), x, 3), expected**2)


def test_a_gate_that_a_signal_divides_is_free_as_in_a_quotient(x):
    layer = nn.Linear(INPUTS, 18).double()

    def explain(divide):
        def model(x):
            g, s, base = layer(x).chunk(3, -1)
            return divide(torch.sigmoid(g), 2 + s**2, base).flatten(1)

        return Sensitivity(gates="constant")(Last(model), x, 3)

    expected = explain(lambda g, s, base: base + g / s)
    torch.testing.assert_close(explain(lambda g, s, base: torch.addcdiv(base, g, s)), expected)


def test_a_product_of_gates_that_is_added_scales_nothing(x):
    layer = nn.Linear(INPUTS, 3).double()
    act = torch.sigmoid
    model = Last(lambda x: torch.addcmul(layer(x)[..., 0], act(layer(x)[..., 1]), act(layer(x)[..., 2])))
    torch.testing.assert_close(Sensitivity(gates="constant")(model, x, 2), plain_gradient(model, x, 2) ** 2)


class Last(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_the_gate_of_glu_is_a_constant(x):
    layer = nn.Linear(6 * INPUTS, 8).double()
    model = nn.Sequential(nn.Flatten(), layer, nn.GLU(dim=-1))
    signal, gate = layer.weight.chunk(2)
    value = torch.sigmoid(F.linear(x.flatten(1), gate, layer.bias[4:]))[:, 2, None] * signal[2]
    torch.testing.assert_close(Sensitivity(gates="constant")(model, x, 2), value.view_as(x).detach() ** 2)


@pytest.mark.parametrize("cell", [relu_lstm, coupled_lstm, gru_by_lerp], ids=lambda cell: cell.__name__)
def test_guided_backprop_holds_gates_and_guides_relus(cell, x):
    expected = GuidedBackprop()(Net(cell, "zeros", held), x, 1)
    free_gates = GuidedBackprop()(Net(cell), x, 1)
    assert not torch.allclose(expected, free_gates)
    torch.testing.assert_close(GuidedBackprop(gates="constant")(Net(cell), x, 1), expected)


def test_methods_that_average_hold_gates_too(x):
    """Along the way from the baseline, and with noise; here the network with gates held is linear in x."""
    model, detached = Net(relu_lstm), Net(relu_lstm, "zeros", held)
    expected = IntegratedGradients(0.5, steps=3)(detached, x, 0)
    torch.testing.assert_close(IntegratedGradients(0.5, 3, gates="constant")(model, x, 0), expected)
    expected = SmoothGrad(Sensitivity(), samples=2)(detached, x, 0)
    torch.testing.assert_close(SmoothGrad(Sensitivity(gates="constant"), samples=2)(model, x, 0), expected)


@pytest.mark.parametrize("network", [RLSTM, RGRU, LSTM, GRU])
def test_the_networks_of_the_study(network, monkeypatch):
    torch.manual_seed(0)
    model = network(features=8, units=6).eval().double()
    x = torch.rand(3, 1, 28, 84, dtype=torch.float64) * 2 - 1
    found = GuidedBackprop(gates="constant")(model, x, 4)
    monkeypatch.setattr(nn.Sigmoid, "forward", lambda self, x: torch.sigmoid(x).detach())
    torch.testing.assert_close(found, GuidedBackprop()(model, x, 4))


class Torchs(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_torchs_own_lstm(options, dtype, x):
    """By the book, layer by layer and step by step."""
    torch.manual_seed(0)
    layer = nn.LSTM(INPUTS, UNITS, batch_first=True, **options).to(dtype)
    x = x.to(dtype)

    class ByTheBook(nn.Module):
        def forward(self, x):
            for number in range(layer.num_layers):
                ways = []
                for way in [""] + ["_reverse"] * layer.bidirectional:
                    w_ih, w_hh, b_ih, b_hh = (
                        getattr(layer, f"{name}_l{number}{way}")
                        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                    )
                    h = c = x.new_zeros(len(x), UNITS)
                    outputs = []
                    for step in x.flip(1).unbind(1) if way else x.unbind(1):
                        i, f, g, o = F.linear(step, w_ih, b_ih).add(F.linear(h, w_hh, b_hh)).chunk(4, 1)
                        i, f, o = (torch.sigmoid(gate).detach() for gate in (i, f, o))
                        c = f * c + i * g.tanh()
                        h = o * c.tanh()
                        outputs.append(h)
                    ways.append(torch.stack(outputs[::-1] if way else outputs, 1))
                x = torch.cat(ways, -1)
            return x[:, -1]

    expected = plain_gradient(ByTheBook(), x, 2)
    torch.testing.assert_close(GradientTimesInput(gates="constant")(Torchs(layer), x, 2), x * expected)


def test_torchs_own_gru(x):
    torch.manual_seed(0)
    layer = nn.GRU(INPUTS, UNITS, batch_first=True).double()

    class ByTheBook(nn.Module):
        def forward(self, x):
            h = x.new_zeros(len(x), UNITS)
            for step in x.unbind(1):
                xr, xz, xn = F.linear(step, layer.weight_ih_l0, layer.bias_ih_l0).chunk(3, 1)
                hr, hz, hn = F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0).chunk(3, 1)
                r, z = torch.sigmoid(xr + hr).detach(), torch.sigmoid(xz + hz).detach()
                h = (1 - z) * torch.tanh(xn + r * hn) + z * h
            return h

    expected = plain_gradient(ByTheBook(), x, 2)
    torch.testing.assert_close(Sensitivity(gates="constant")(Torchs(layer), x, 2), expected**2)


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell])
def test_torchs_own_cells(cell, x):
    """A single step from zeros; the reset gate then scales nothing but a bias."""
    torch.manual_seed(0)
    layer = cell(INPUTS, UNITS).double()

    class Step(nn.Module):
        def __init__(self, hold):
            super().__init__()
            self.hold = hold

        def forward(self, x):
            if self.hold is free:
                h = layer(x)
                return h[0] if isinstance(h, tuple) else h
            zeros = x.new_zeros(len(x), UNITS)
            if cell is nn.LSTMCell:
                i, _, g, o = F.linear(x, layer.weight_ih, layer.bias_ih + layer.bias_hh).chunk(4, 1)
                return held(torch.sigmoid(o)) * torch.tanh(held(torch.sigmoid(i)) * g.tanh())
            xr, xz, xn = F.linear(x, layer.weight_ih, layer.bias_ih).chunk(3, 1)
            hr, hz, hn = F.linear(zeros, layer.weight_hh, layer.bias_hh).chunk(3, 1)
            return (1 - held(torch.sigmoid(xz + hz))) * torch.tanh(xn + held(torch.sigmoid(xr + hr)) * hn)

    expected = plain_gradient(Step(held), x[:, 0], 2)
    torch.testing.assert_close(Sensitivity(gates="constant")(Step(free), x[:, 0], 2), expected**2)


def test_ten_thousand_steps():
    """Nothing recurses over time."""
    model = Net(gru_by_lerp)
    x = torch.randn(1, 10_000, INPUTS, dtype=torch.float64)
    expected = plain_gradient(Net(gru_by_lerp, "zeros", held), x, 0)
    torch.testing.assert_close(GuidedBackprop(gates="constant")(model, x, 0).shape, x.shape)
    torch.testing.assert_close(Sensitivity(gates="constant")(model, x, 0), expected**2)


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sigmoid()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize("gate", [torch.sigmoid, F.hardsigmoid], ids=lambda gate: gate.__name__)
@pytest.mark.parametrize("product", ["x @ W", "W @ x", "batched", "vector"])
def test_a_matrix_may_read_a_sigmoid(gate, product, x):
    """A layer without a bias: the sigmoid is an activation, and its gradient stays."""
    weight = torch.randn(x.shape[2], x.shape[2], dtype=x.dtype)

    class Network(nn.Module):
        def forward(self, x):
            h = gate(x)
            return {
                "x @ W": lambda: h[:, 0] @ weight,
                "W @ x": lambda: (weight @ h[:, 0].T).T,
                "batched": lambda: (h @ weight.expand(len(x), -1, -1))[:, 0],
                "vector": lambda: torch.stack([weight @ row for row in h[:, 0]]),
            }[product]()

    one, other = (GradientTimesInput(gates=gates)(Network(), x, 0) for gates in ("constant", "free"))
    assert bool(other.any())
    torch.testing.assert_close(one, other)


def test_what_may_hide_a_gate_is_refused(x):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6 * INPUTS, 2).double())
    model.register_forward_hook(lambda *arguments: Hidden.apply(arguments[-1]))
    with pytest.raises(UnexplainableError, match="'HiddenBackward' contains a gate"):
        Sensitivity(gates="constant")(model, x, 0)


@pytest.mark.parametrize("way", ["in place", "joined"])
def test_gates_beside_signals_in_one_tensor_are_refused(way, x):
    def cell(x2h, h2h, x, hold, state):
        net = x2h(x).sum(1)
        if way == "joined":
            net = torch.cat([net[:, :UNITS].sigmoid(), net[:, UNITS:]], 1)
        else:
            net = net.clone()
            net[:, :UNITS].sigmoid_()
        return net[:, :UNITS] * net[:, UNITS : 2 * UNITS]

    Sensitivity()(Net(cell), x, 0)
    with pytest.raises(UnexplainableError, match=r"cannot separate gates from signals .* 'MulBackward0'"):
        Sensitivity(gates="constant")(Net(cell), x, 0)


FUNCTIONS = {
    "cumprod": lambda z, n: z.cumprod(1) * n,
    "a scan by cumprod": lambda z, n: z.cumprod(1) * torch.cumsum((1 - z) * n / z.cumprod(1), 1),
    "cumsum of logarithms": lambda z, n: z.log().cumsum(1).exp() * n,
    "prod": lambda z, n: z.prod(1, keepdim=True) * n,
    "softmax": lambda z, n: z.softmax(1) * n,
    "logsigmoid": lambda z, n: F.logsigmoid(z.log()).exp() * n,
    "padded": lambda z, n: F.pad(z, (1, 0))[:, :-1] * n,
    "scattered": lambda z, n: (
        torch.zeros_like(n).scatter(1, torch.arange(UNITS).flip(0).expand(len(z), -1), z) * n
    ),
    "largest": lambda z, n: z.amax(1, keepdim=True) * n,
    "average": lambda z, n: F.avg_pool1d(z[:, None], UNITS)[:, 0] * n,
    "on a diagonal": lambda z, n: (torch.diag_embed(z) @ n[..., None])[..., 0],
    "an example at a time": lambda z, n: torch.stack([z_.diag() @ n_ for z_, n_ in zip(z, n, strict=True)]),
    "ReLU6": lambda z, n: F.relu6(6 * z - 1) * n,
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_computed_of_gates_only_is_a_gate(function, x):
    def cell(x2h, h2h, x, hold, state):
        net = x2h(x).sum(1)
        return FUNCTIONS[function](hold(net[:, :UNITS].sigmoid()), net[:, UNITS : 2 * UNITS].tanh())

    expected = plain_gradient(Net(cell, hold=held), x, 1)
    torch.testing.assert_close(GradientTimesInput(gates="constant")(Net(cell), x, 1), x * expected)
    assert not torch.allclose(plain_gradient(Net(cell), x, 1), expected)


LOGARITHMS = {
    "exp": lambda net: F.logsigmoid(net).exp(),
    "a scan": lambda net: F.logsigmoid(net).cumsum(1).exp(),
    "of the negative": lambda net: 1 - torch.exp(F.logsigmoid(-net)),
}


@pytest.mark.parametrize("name", LOGARITHMS)
def test_a_log_sigmoid_is_the_logarithm_of_a_gate(name, x):
    def cell(x2h, h2h, x, hold, state):
        net = x2h(x).sum(1)
        return hold(LOGARITHMS[name](net[:, :UNITS])) * net[:, UNITS : 2 * UNITS].tanh()

    expected = plain_gradient(Net(cell, hold=held), x, 1)
    torch.testing.assert_close(GradientTimesInput(gates="constant")(Net(cell), x, 1), x * expected)
    assert not torch.allclose(plain_gradient(Net(cell), x, 1), expected)


def test_another_word_for_gates_is_refused():
    with pytest.raises(ValueError, match="gates='held': choose from free, constant"):
        GuidedBackprop(gates="held")


class GateOfAnother(nn.Module):
    """One input gates the other; in the order of the arguments, or in the other order."""

    def __init__(self, hold, swapped):
        super().__init__()
        torch.manual_seed(0)
        self.signal, self.gate, self.out = (nn.Linear(*sizes).double() for sizes in ((3, 4), (2, 4), (4, 2)))
        self.hold, self.swapped = hold, swapped

    def forward(self, one, two):
        signal, gate = (two, one) if self.swapped else (one, two)
        return self.out(self.hold(self.gate(gate).sigmoid()) * self.signal(signal) + self.gate(gate).relu())


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("method", [Sensitivity, GuidedBackprop, GradientTimesInput])
def test_gates_of_every_input_are_constants(method, swapped):
    torch.manual_seed(1)
    x = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    x = x[::-1] if swapped else x
    relevance = method(gates="constant")(GateOfAnother(free, swapped), x, 1)
    known = method(gates="free")(GateOfAnother(held, swapped), x, 1)
    for own, other in zip(relevance, known, strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("method", [Sensitivity, GradientTimesInput])
def test_gates_that_tokens_open_are_constants(method):
    torch.manual_seed(0)
    embedding, lstm, out = (
        nn.Embedding(7, 6).double(),
        nn.LSTM(6, 5, batch_first=True).double(),
        nn.Linear(5, 3).double(),
    )

    class OfVectors(nn.Module):
        def forward(self, vectors):
            return out(lstm(vectors)[0][:, -1])

    tokens = torch.randint(0, 7, (2, 4))
    model = nn.Sequential(embedding, OfVectors())
    relevance = method(gates="constant")(OfVectors(), embedding(tokens).detach(), 1)
    torch.testing.assert_close(method(gates="constant")(model, tokens, 1), relevance.sum(-1))
