"""Relevance with a graph: its gradients by the parameters, against finite differences; and nothing else changes."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from graph_networks import (
    METHODS,
    NETWORKS,
    OTHERS,
    Last,
    Written,
    assert_gradients,
    made,
    scalar,
)
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    Epsilon,
    UnexplainableError,
    ZPlus,
)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("rule", METHODS)
def test_gradients_are_finite_differences(rule, network):
    model, x = made(network)
    assert scalar(METHODS[rule]()(model, x, 1)) != 0
    assert_gradients(METHODS[rule], model, x)


@pytest.mark.parametrize("network", OTHERS)
@pytest.mark.parametrize("rule", ["z+", "epsilon", "alpha-beta"])
def test_gradients_of_other_networks(rule, network):
    model, x = made(network)
    assert_gradients(METHODS[rule], model, x)


class Bilinear(nn.Module):
    """A product of two signals, of which one is made of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(12, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.one(x.flatten(1)))
        return self.out(h * torch.tanh(self.two(h)))


@pytest.mark.parametrize(
    "options",
    [{"products": "half"}, {"products": "left"}, {"products": "half", "bias": "spread"}, {"products": "half", "bias": "ignore"},
     {"products": "half", "sums": "closed"}],
    ids=str,
)  # fmt: skip
def test_gradients_of_the_composites_ways(options):
    torch.manual_seed(0)
    model, x = Bilinear().double(), torch.rand(2, 3, 4, dtype=torch.float64)
    assert_gradients(lambda **k: LRP(Composite(Epsilon(0.05), **options), **k), model, x)
    cell, x = made("gated cell")
    assert_gradients(lambda **k: LRP(Composite(Epsilon(0.05), memory="per_step", **options), **k), cell, x)


def test_a_long_memory_has_gradients():
    """Totals with exponents."""
    torch.manual_seed(0)
    model = Last(nn.LSTM(2, 3, batch_first=True), 3).double()
    model.out.bias.data += 1
    x = torch.rand(2, 30, 2, dtype=torch.float64)
    for rule in ("z+", "gamma", "epsilon"):
        assert_gradients(METHODS[rule], model, x)


@pytest.mark.parametrize("rule", METHODS)
def test_what_is_overwritten(rule):
    """By views that were made before, too: as the same network that overwrites nothing."""
    model, x = made("not written")
    written = Written().double()
    written.load_state_dict(model.state_dict())
    torch.testing.assert_close(written(x), model(x))  # torch agrees
    torch.testing.assert_close(METHODS[rule]()(written, x, 1), METHODS[rule]()(model, x, 1))
    results = []
    for network in (written, model):
        relevance = METHODS[rule](create_graph=True)(network, x, 1)
        gradients = torch.autograd.grad(scalar(relevance), list(network.parameters()), materialize_grads=True)
        results.append([relevance, *gradients])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("network", [*NETWORKS, *OTHERS])
@pytest.mark.parametrize("rule", METHODS)
def test_the_relevance_is_the_same(rule, network):
    model, x = made(network)
    plain, graph = METHODS[rule]()(model, x), METHODS[rule](create_graph=True)(model, x)
    assert not plain.requires_grad
    assert graph.requires_grad
    assert torch.isfinite(plain).all()
    torch.testing.assert_close(graph.detach(), plain, rtol=1e-12, atol=1e-12)


def same(model: nn.Module, x, rules=None, **options) -> None:
    plain = LRP(rules, start="logit").explain(model, x, 0, **options)
    graph = LRP(rules, start="logit", create_graph=True).explain(model, x, 0, **options)
    torch.testing.assert_close(graph.relevance, plain.relevance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(graph.logits, plain.logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(graph.explained, plain.explained, rtol=1e-12, atol=1e-12)
    for name, parts in plain.layers.items():
        torch.testing.assert_close(graph.layers[name], parts, rtol=1e-12, atol=1e-12)
        assert any(part.requires_grad for part in graph.layers[name])


def test_dropout_draws_the_same_units():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 20), nn.Dropout(0.3), nn.Linear(20, 3)
    )
    x = torch.rand(4, 6, dtype=torch.float64)
    results = []
    for create_graph in (False, True):
        torch.manual_seed(3)
        results.append(LRP(create_graph=create_graph, start="logit")(model.double(), x, 0))
    torch.testing.assert_close(results[1].detach(), results[0], rtol=1e-12, atol=1e-12)


def test_rules_by_name_and_layers_are_those_of_the_layer():
    model, x = made("shared layer")
    same(model, x, Composite(Epsilon(0.1), by_name={"back": ZPlus(), "drive": ZPlus()}), layers=("drive", "back"))
    model, x = made("in-place ReLU")
    same(model, x, Composite(ZPlus(), by_type={nn.Linear: AlphaBeta(2, 1)}), layers=("1", "2", "3"))


class Tagger(nn.Module):
    """Tokens in, a dict with probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm, self.out = nn.Embedding(7, 4), nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        packed = pack_padded_sequence(self.table(x), lengths, batch_first=True, enforce_sorted=False)
        return {"logits": self.out(self.lstm(packed)[1][0][0]).softmax(1)}


def test_tokens_packed_and_a_last_softmax():
    torch.manual_seed(0)
    model, x = Tagger().double(), torch.randint(7, (4, 5))
    lengths = torch.tensor([5, 3, 1, 4])
    same(model, x, lengths=lengths)
    relevance = LRP(create_graph=True, start="logit")(model, x, 1, lengths=lengths)
    relevance.square().sum().backward()
    assert (model.table.weight.grad.abs().sum(1) > 0).any()


def test_the_input_may_be_overwritten():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            first = x[:, :2]
            x[:, 1:3] = 0
            x *= 2
            return self.out(torch.cat([first, x[:, 2:]], 1))

    torch.manual_seed(0)
    model, x = Masked().double(), torch.rand(3, 6, dtype=torch.float64)
    before = x.clone()
    assert_gradients(METHODS["epsilon"], model, x)
    relevance = LRP(Epsilon(1e-9), create_graph=True)(model, x, 0)
    expected = 2 * x * model.out.weight[0] * torch.tensor([1.0, 0, 0, 1, 1, 1])
    logit = expected.sum(1) + model.out.bias[0]
    torch.testing.assert_close(relevance, expected * logit[:, None] / (logit + 1e-9 * logit.sign())[:, None])
    assert torch.equal(x, before)


@pytest.mark.parametrize("network", ["nn.LSTM", "state", "norms", "in-place ReLU"])
def test_the_model_is_left_as_it_was(network):
    model, x = made(network)
    x.requires_grad_()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = {name: dict(module.__dict__) for name, module in model.named_modules()}
    random = torch.get_rng_state()
    relevance = LRP(create_graph=True, start="logit")(model, x, 0)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, module in model.named_modules():
        assert module.__dict__.keys() == attributes[name].keys()
    relevance.sum().backward()  # nothing that the graph needs was changed when the state was put back
    assert x.grad is None


@pytest.mark.parametrize("network", ["nn.LSTM", "convolution and max pooling", "in-place ReLU"])
def test_nothing_stays_in_memory(network):
    model, x = made(network)
    LRP(create_graph=True, start="logit")(model, x, 0)
    gc.collect()
    tensors = lambda: sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())  # noqa: E731
    before = tensors()
    for _ in range(3):
        relevance = LRP(create_graph=True, start="logit")(model, x, 0)
        watched = weakref.ref(relevance)
        relevance.sum().backward(inputs=list(model.parameters()))
        del relevance
    model.zero_grad()
    gc.collect()
    assert watched() is None
    assert tensors() <= before


def test_a_second_derivative_of_the_loss():
    model, x = made("shared layer")
    value = scalar(LRP(create_graph=True, start="logit")(model, x, 0))
    weight = model.drive.weight
    (first,) = torch.autograd.grad(value, weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight)
    assert torch.isfinite(second).all()
    assert second.abs().sum() > 0


def test_inside_no_grad_there_is_a_graph():
    model, x = made("feed-forward")
    with torch.no_grad():
        assert LRP(create_graph=True, start="logit")(model, x, 0).requires_grad
        assert not LRP(start="logit")(model, x, 0).requires_grad


def test_a_graph_of_the_logits_comes_along():
    model, x = made("nn.LSTM")
    explanation = LRP(create_graph=True, start="logit").explain(model, x, 0)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    got = torch.autograd.grad(explanation.logits.square().sum(), list(model.parameters()))
    torch.testing.assert_close(got, expected)


def test_refusals_are_the_same():
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.layer(x + 1)

    messages = []
    for create_graph in (False, True):
        with pytest.raises(UnexplainableError) as error:
            LRP(create_graph=create_graph, start="logit")(Product(), torch.rand(2, 4), 0)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_what_cannot_be_done_twice_is_refused():
    class Clipped(nn.Module):
        def __init__(self, hidden: bool) -> None:
            super().__init__()
            self.layer, self.hidden = nn.Linear(4, 3), hidden
            self.register_buffer("state", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x) * self.state
            if self.hidden:
                self.state.data = 5 * self.state
            else:
                self.layer.weight.data.clamp_(min=0.1)
            return y

    with pytest.raises(UnexplainableError, match="overwrites one of its parameters"):
        LRP(create_graph=True, start="logit")(Clipped(False), torch.rand(2, 4), 0)
    with pytest.raises(UnexplainableError, match="differs when its operations are repeated"):
        LRP(create_graph=True, start="logit")(Clipped(True), torch.rand(2, 4), 0)


def test_training_on_relevance_moves_it_to_the_mask():
    """1 - cosine of the relevance of each step and a mask."""
    torch.manual_seed(0)
    model = Last(nn.LSTM(4, 8, batch_first=True), 8)
    x, mask = torch.rand(16, 5, 4), torch.zeros(16, 5)
    mask[torch.arange(16), torch.randint(5, (16,))] = 1
    x[mask.bool()] += 1
    method = LRP(Epsilon(0.1), create_graph=True)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(30):
        loss = 1 - F.cosine_similarity(method(model, x, 0).sum(2), mask).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_a_view_written_by_hand():
    """In torch 2.14 the gradient of `as_strided_scatter` by its base is that of what is overwritten."""

    class Scattered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            base, part = self.one(x).relu(), self.two(x).relu()
            return self.out(torch.as_strided_scatter(base, part, (len(x), 2), (6, 1), 3))

    class Joined(Scattered):
        def forward(self, x: Tensor) -> Tensor:
            base, part = self.one(x).relu(), self.two(x).relu()
            return self.out(torch.cat([base[:, :3], part, base[:, 5:]], 1))

    torch.manual_seed(0)
    one, two, x = Scattered().double(), Joined().double(), torch.rand(4, 6, dtype=torch.float64)
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(LRP(start="logit")(one, x, 0), LRP(start="logit")(two, x, 0))
    assert_gradients(METHODS["z+"], one, x)


@pytest.mark.parametrize("rule", ["z+", "epsilon", "alpha-beta"])
def test_what_lies_in_memory_in_another_order(rule):
    """A part of a transposed sum is overwritten, whose constant is the same for all examples."""

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = (self.one(x).t() * 1).t()
            earlier = h[:, 1:4]
            h[1:, 2:] = self.two(x)[1:, :3]
            earlier *= 2
            return self.out(h)

    class Plain(Transposed):
        def forward(self, x: Tensor) -> Tensor:
            h = self.one(x)
            h = torch.cat([h[:1], torch.cat([h[1:, :2], self.two(x)[1:, :3]], 1)])
            return self.out(torch.cat([h[:, :1], h[:, 1:4] * 2, h[:, 4:]], 1))

    torch.manual_seed(0)
    one, two, x = Transposed().double(), Plain().double(), torch.rand(4, 6, dtype=torch.float64)
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(one(x), two(x))
    expected = METHODS[rule]()(two, x, 0)
    torch.testing.assert_close(METHODS[rule](create_graph=True)(one, x, 0).detach(), expected)
    torch.testing.assert_close(METHODS[rule]()(one, x, 0), expected)


LENGTHS = {
    "an index": lambda m, h, n: h[torch.arange(len(n)), n - 1],
    "gather": lambda m, h, n: h.gather(1, (n - 1).view(-1, 1, 1).expand(-1, 1, h.shape[2])).squeeze(1),
    "a mean": lambda m, h, n: h.sum(1) / n[:, None],
    "packed again": lambda m, h, n: m.lstm(pack_padded_sequence(h, n, batch_first=True, enforce_sorted=False))[1][0][-1],
}  # fmt: skip


class Padded(nn.Module):
    """What is read of a packed sequence, by the lengths that torch gives, which no operation has written."""

    def __init__(self, read):
        super().__init__()
        torch.manual_seed(0)
        self.read, self.lstm, self.out = read, nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        packed = pack_padded_sequence(x, torch.tensor([3, 5]), batch_first=True, enforce_sorted=False)
        return self.out(self.read(self, *pad_packed_sequence(self.lstm(packed)[0], batch_first=True)))


@pytest.mark.parametrize("read", LENGTHS)
def test_lengths_of_an_unpacked_sequence_are_the_same_in_the_graph(read):
    model, x = Padded(LENGTHS[read]).double(), torch.randn(2, 5, 4, dtype=torch.float64)
    for rule in (ZPlus(), Epsilon(0.05)):
        ours = LRP(rule, create_graph=True)(model, x, 1)
        torch.testing.assert_close(ours, LRP(rule)(model, x, 1))
    assert_gradients(lambda **k: LRP(Epsilon(0.05), **k), model, x)
