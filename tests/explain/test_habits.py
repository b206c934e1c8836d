"""Networks as they are wrapped in practice: mixed precision, backward hooks, inference mode."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rnnx_lightning.explain import (
    LRP,
    Epsilon,
    Gamma,
    GradientTimesInput,
    GuidedBackprop,
    IntegratedGradients,
    UnexplainableError,
)


class Reader(nn.Module):
    """A recurrent layer, normalised and read at its last step."""

    def __init__(self, layer=nn.LSTM):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = layer(3, 5, batch_first=True), nn.LayerNorm(5)
        self.hidden, self.out = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(self.norm(self.layer(x)[0][:, -1]))))


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(4, 6, 3)


@pytest.mark.parametrize("rules", [Epsilon(0.1), Gamma(0.25)], ids=["epsilon", "gamma"])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_autocast_within_the_network(layer, rules, x):
    class Mixed(Reader):
        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(x)

    method = LRP(rules, start="logit")
    relevance, expected = method(Mixed(layer), x, 0), method(Reader(layer), x, 0)
    assert relevance.dtype == x.dtype
    assert (relevance - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize(
    "method",
    [GuidedBackprop(), GuidedBackprop(gates="constant"), GradientTimesInput(gates="constant"), LRP(Epsilon())],
    ids=["guided", "guided, gates constant", "gates constant", "LRP"],
)
def test_backward_hooks(method, x):
    """torch wraps a module with backward hooks in an autograd function of its own, which changes nothing."""
    model = Reader()
    for module in (model, model.layer, model.hidden, model.out):
        module.register_full_backward_hook(lambda *_: None)
    torch.testing.assert_close(method(model, x, 0), method(Reader(), x, 0))


def test_a_gate_beside_a_signal_among_the_inputs_of_a_hooked_module_is_not_overlooked(x):
    class Product(nn.Module):
        def forward(self, gate, signal):
            return gate * signal

    class Gated(Reader):
        def __init__(self):
            super().__init__()
            self.product = Product()

        def forward(self, x):
            return self.product(self.hidden(x[:, 0].repeat(1, 2)[:, :5]).sigmoid(), x[:, 1].repeat(1, 2)[:, :5])

    model = Gated()
    GradientTimesInput(gates="constant")(model, x, 0)
    model.product.register_full_backward_hook(lambda *_: None)
    with pytest.raises(UnexplainableError, match="separate"):
        GradientTimesInput(gates="constant")(model, x, 0)


@pytest.mark.parametrize("create_graph", [False, True])
def test_inference_mode_within_the_network_is_refused_with_what_to_do(create_graph, x):
    class Without(Reader):
        context = torch.inference_mode

        def forward(self, x):
            with self.context():
                return super().forward(x)

    model, method = Without(), LRP(Epsilon(0.1), create_graph=create_graph)
    with pytest.raises(UnexplainableError, match=r"Use torch\.no_grad"):
        method(model, x, 0)
    Without.context = torch.no_grad
    torch.testing.assert_close(method(model, x, 0), method(Reader(), x, 0))


class Checkpointed(Reader):
    """The gated part is run again for its gradient."""

    def __init__(self, way):
        super().__init__()
        self.way, self.gate = way, nn.Linear(5, 5)

    def part(self, h):
        return torch.relu(self.hidden(h)) * self.gate(h).sigmoid()

    def forward(self, x):
        h = self.norm(self.layer(x)[0][:, -1])
        if self.way is not None:
            return self.out(checkpoint(self.part, h, use_reentrant=self.way))
        return self.out(self.part(h))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "method",
    [
        GradientTimesInput(),
        GradientTimesInput(gates="constant"),
        GuidedBackprop(),
        IntegratedGradients(3),
        LRP(Epsilon(0.1)),
    ],
)
def test_checkpointed_parts(method, reentrant, x):
    expected = method(Checkpointed(None), x, 0)
    before = torch.utils.checkpoint.CheckpointFunction
    torch.testing.assert_close(method(Checkpointed(reentrant), x, 0), expected)
    assert torch.utils.checkpoint.CheckpointFunction is before


def test_gates_divided_by_numbers(x):
    """A quotient of a tensor and a number has one input in the graph if it is called by its lowest name."""

    class Gated(Reader):
        def __init__(self, divide):
            super().__init__()
            self.divide = divide

        def forward(self, x):
            h = self.layer(x)[0][:, -1]
            return self.out(self.divide(self.hidden(h).sigmoid(), 2.0) * h)

    one, other = (
        GradientTimesInput(gates="constant")(Gated(divide), x, 0)
        for divide in (torch.div, torch.ops.aten.div.Scalar)
    )
    torch.testing.assert_close(one, other)
