"""Gradient methods on tokens, against the gradient of the table: every token of the input is another one."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode

from rnnx_lightning.explain import (
    GradientTimesInput,
    GuidedBackprop,
    InChunks,
    IntegratedGradients,
    Sensitivity,
    SmoothGrad,
    UnexplainableError,
)

BATCH, STEPS, KINDS, WIDTH = 3, 6, 30, 5
START, UNKNOWN = 1, 2  # tokens that the network adds


def shifted_in_place(x):
    moved = torch.empty_like(x)
    moved[:, 0] = START
    moved[:, 1:] = x[:, :-1]
    return moved


WAYS = {
    "as they are": lambda x: x,
    "part": lambda x: x[:, 1:4],
    "transposed": lambda x: x.t().t().contiguous(),
    "reversed": lambda x: x.flip(1),
    "rolled": lambda x: torch.roll(x, 2, 1),
    "with a start token": lambda x: torch.cat([torch.full_like(x[:, :1], START), x[:, :-1]], 1),
    "written into a buffer": shifted_in_place,
    "padded": lambda x: F.pad(x, (2, 0), value=START),
    "step by step": lambda x: torch.stack(x.unbind(1)[::2], 1),
    "masked": lambda x: x.masked_fill(x % 3 == 0, UNKNOWN),
    "masked in place": lambda x: x.masked_fill_(x % 3 == 0, UNKNOWN),
    "chosen": lambda x: torch.where(x % 2 == 0, x, UNKNOWN),
    "gathered": lambda x: x.gather(1, torch.tensor([[3, 0, 0], [1, 2, 5], [4, 4, 1]])),
    "sorted by length": lambda x: x[torch.tensor([2, 0, 1])][torch.tensor([1, 2, 0])],
    "as int32": lambda x: x.int(),
    "folded into the vocabulary": lambda x: (x + KINDS) % KINDS,
    "clamped": lambda x: x.clamp(0, KINDS - 1),
    "windows": lambda x: x.unfold(1, 3, 1).flatten(1),
    "repeated": lambda x: x.repeat_interleave(2, 1),
    "constants only": lambda x: torch.cat([x, torch.zeros_like(x)], 1),
}


class Reader(nn.Module):
    """Two logits from the vectors of tokens, through a ReLU and a softmax over the steps."""

    def __init__(self, move=lambda x: x, lookup=None):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(KINDS, WIDTH).double()
        self.hidden, self.out = nn.Linear(WIDTH, 8).double(), nn.Linear(8, 2).double()
        self.move, self.lookup = move, lookup

    def read(self, vectors):
        hidden = self.hidden(vectors).relu()
        steps = torch.arange(1.0, hidden.shape[1] + 1, dtype=torch.float64)
        return self.out((hidden * (hidden.sum(-1) * steps).softmax(1).unsqueeze(-1)).sum(1))

    def forward(self, x):
        tokens = self.move(x)
        vectors = self.embedding(tokens) if self.lookup is None else self.lookup(tokens, self.embedding.weight)
        return self.read(vectors)


def tokens():
    torch.manual_seed(1)
    return (torch.randperm(KINDS - 3)[: BATCH * STEPS] + 3).view(BATCH, STEPS)


def gradient_of_table(model, x, target=1):
    """The gradient (B, T, D) of the explained logit with respect to each token's vector."""
    weight = model.embedding.weight
    (gradient,) = torch.autograd.grad(model(x.clone())[:, target].sum(), weight)
    return gradient[x], weight.detach()[x]


def check(model, x):
    gradient, vectors = gradient_of_table(model, x)
    assert gradient.abs().sum() > 0
    close = {"rtol": 1e-9, "atol": 1e-12}
    relevance = GradientTimesInput()(model, x, 1)
    assert relevance.dtype == torch.float64
    torch.testing.assert_close(relevance, (gradient * vectors).sum(-1), **close)


@pytest.mark.parametrize("way", WAYS)
def test_tokens_are_followed(way):
    check(Reader(WAYS[way]), tokens())


LOOKUPS = {
    "F.embedding": F.embedding,
    "F.embedding by keywords": lambda x, table: F.embedding(input=x, weight=table),
    "index_select by keywords": lambda x, table: torch.index_select(input=table, dim=0, index=x.flatten()).view(
        *x.shape, WIDTH
    ),
    "bags by keywords": lambda x, table: F.embedding_bag(input=x, weight=table, mode="sum").unsqueeze(1),
    "rows of the table": lambda x, table: table[x],
    "index_select": lambda x, table: table.index_select(0, x.flatten()).view(*x.shape, WIDTH),
    "one-hot": lambda x, table: F.one_hot(x, KINDS).double() @ table,
    "one-hot, of a type": lambda x, table: F.one_hot(x, KINDS).to(table.dtype).matmul(table),
    "one-hot, scattered": lambda x, table: (
        torch.zeros(*x.shape, KINDS, dtype=table.dtype).scatter_(2, x[..., None], 1.0) @ table
    ),
    "rows of a reversed table": lambda x, table: table.flip(0)[KINDS - 1 - x],
    "bags": lambda x, table: F.embedding_bag(x, table, mode="mean").unsqueeze(1),
    "bags of unequal sizes": lambda x, table: F.embedding_bag(
        x.flatten(), table, torch.tensor([0, 2, 9]), mode="sum"
    ).unsqueeze(1),
    "bags with padding": lambda x, table: F.embedding_bag(x, table, mode="mean", padding_idx=3).unsqueeze(1),
    "weighted bags": lambda x, table: F.embedding_bag(
        x, table, mode="sum", per_sample_weights=torch.linspace(0, 1, 18).double().view(3, 6)
    ).unsqueeze(1),
    "the largest of bags": lambda x, table: F.embedding_bag(x, table, mode="max").unsqueeze(1),
    "scaled in place": lambda x, table: F.embedding(x, table).mul_(1.0),
    "twice": lambda x, table: torch.cat([F.embedding(x, table), F.embedding(x.flip(1), 2 * table)], 1),
}


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_vectors_are_looked_up_in_many_ways(lookup):
    check(Reader(lookup=LOOKUPS[lookup]), tokens())


class Beside(Reader):
    """The same, and numbers of their own, so that the relevance of tokens may be 0."""

    def forward(self, x, numbers):
        return super().forward(x) + numbers


NOT_KNOWN = {
    "gather": lambda x, table: table.expand(BATCH, -1, -1).gather(1, x[..., None].expand(-1, -1, WIDTH)),
    "take_along_dim": lambda x, table: torch.take_along_dim(table, x.view(-1, 1), 0).view(*x.shape, WIDTH),
    "take": lambda x, table: table.take(x[..., None] * WIDTH + torch.arange(WIDTH)),
    "flat": lambda x, table: table.flatten()[x[..., None] * WIDTH + torch.arange(WIDTH)],
    "rows and all columns": lambda x, table: table[x, :],
}


@pytest.mark.parametrize("lookup", NOT_KNOWN)
def test_other_lookups_are_refused_also_beside_numbers(lookup):
    numbers = torch.rand(BATCH, 2, dtype=torch.float64)
    with pytest.raises(UnexplainableError, match="Tokens are looked up"):
        Sensitivity()(Beside(lookup=NOT_KNOWN[lookup]), (tokens(), numbers), 1)


def test_entries_of_the_input_are_chosen_by_tokens():
    model = Beside(lookup=lambda x, table: F.embedding(x, table) if x.dim() > 1 else table[x, :])
    model.forward = lambda x, lengths: model.out(model.hidden(x[torch.arange(BATCH), lengths - 1]).relu())
    x = torch.rand(BATCH, STEPS, WIDTH, dtype=torch.float64)
    relevance, none = Sensitivity()(model, (x, torch.tensor([6, 2, 4])), 1)
    assert not none.any()
    assert torch.equal(relevance.abs().sum(-1) > 0, F.one_hot(torch.tensor([5, 1, 3]), STEPS) > 0)


class Largest(TorchDispatchMode):
    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        value = func(*args, **(kwargs or {}))
        self.entries = max(self.entries, value.numel() if isinstance(value, torch.Tensor) else 0)
        return value


@pytest.mark.parametrize(
    "count",
    [
        lambda x: torch.bincount(x.flatten(), minlength=KINDS),
        lambda x: torch.repeat_interleave(x[0]),
        lambda x: x.repeat_interleave(x[0], 1),
        lambda x: F.one_hot(x).sum((0, 1)),
    ],
)
def test_counts_of_tokens_take_no_memory(count):
    model = Reader(lambda x: x + 0 * count(x).sum())
    with Largest() as largest, contextlib.suppress(UnexplainableError):
        Sensitivity()(model, tokens(), 1)
    assert largest.entries < 10_000


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_squares_are_summed_over_the_vector(kind):
    torch.manual_seed(0)
    model = Reader()
    model.rnn = kind(WIDTH, WIDTH, batch_first=True).double()
    model.lookup = lambda x, table: model.rnn(F.embedding(x, table))[0]
    x = tokens()
    gradient, _ = gradient_of_table(model, x)
    torch.testing.assert_close(Sensitivity()(model, x, 1), gradient.square().sum(-1))


def test_guided_backprop_of_a_hidden_layer():
    model, x = Reader(), tokens()
    model.read = lambda vectors: model.out(model.hidden(vectors).relu().sum(1))
    vectors, (w, v) = model.embedding(x), (model.hidden.weight, model.out.weight[1])
    active = model.hidden(vectors) > 0
    expected = ((active * v.clamp(min=0)) @ w).square().sum(-1)
    torch.testing.assert_close(GuidedBackprop()(model, x, 1), expected.detach())


@pytest.mark.parametrize("lookup", ["F.embedding", "F.embedding by keywords", "index_select by keywords"])
@pytest.mark.parametrize("token", [None, 0])
def test_integrated_gradients_are_complete(token, lookup):
    model, x = Reader(lookup=LOOKUPS[lookup]), tokens()
    vectors = model.embedding(x)
    start = torch.zeros_like(vectors) if token is None else model.embedding(torch.full_like(x, token))
    relevance = IntegratedGradients(steps=200, baseline_token=token)(model, x, 1)
    expected = (model.read(vectors) - model.read(start))[:, 1]
    torch.testing.assert_close(relevance.sum(1), expected.detach(), rtol=0, atol=1e-3)


def test_noise_is_added_to_vectors():
    model, x = Reader(), tokens()
    method = SmoothGrad(GradientTimesInput(), samples=2, noise=0.0)
    torch.testing.assert_close(method(model, x, 1), GradientTimesInput()(model, x, 1))
    assert not torch.equal(SmoothGrad(samples=2)(model, x, 1), Sensitivity()(model, x, 1))


def test_packed_tokens():
    model, x = Reader(), tokens()
    model.rnn = nn.LSTM(WIDTH, WIDTH).double()
    lengths = torch.tensor([4, 6, 2])

    class Packed(nn.Module):
        def forward(self, packed):
            data = model.embedding(packed.data)
            _, (state, _) = model.rnn(
                PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
            )
            return model.read(state.transpose(0, 1))

    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    relevance = GradientTimesInput()(Packed(), packed, 1)
    network = Packed()
    network.embedding = model.embedding
    (gradient,) = torch.autograd.grad(network(packed)[:, 1].sum(), model.embedding.weight)
    expected = (gradient * model.embedding.weight.detach()).sum(-1)[packed.data]
    torch.testing.assert_close(relevance.data, expected)


class WithMask(Reader):
    """Takes tokens, a mask of whole numbers, and further numbers."""

    def forward(self, ids, mask, numbers):
        vectors = self.embedding(ids) * mask.unsqueeze(-1).double()
        return self.read(vectors + numbers.unsqueeze(1))


def test_several_inputs():
    model = WithMask()
    x = {
        "ids": tokens(),
        "mask": (tokens() % 4 > 0).long(),
        "numbers": torch.randn(BATCH, WIDTH, dtype=torch.float64),
    }
    relevance = GradientTimesInput()(model, x, 1)
    numbers = x["numbers"].clone().requires_grad_()
    logit = model(x["ids"], x["mask"], numbers)[:, 1].sum()
    of_table, of_numbers = torch.autograd.grad(logit, [model.embedding.weight, numbers])
    vectors = model.embedding.weight.detach()[x["ids"]]
    torch.testing.assert_close(relevance["ids"], (of_table[x["ids"]] * vectors).sum(-1))
    torch.testing.assert_close(relevance["numbers"], of_numbers * x["numbers"])
    assert not relevance["mask"].any()


def test_parts_of_a_batch_and_the_predicted_class():
    model, x = Reader(), tokens()
    whole = Sensitivity()(model, x)
    torch.testing.assert_close(InChunks(Sensitivity(), 2)(model, x), whole)
    torch.testing.assert_close(Sensitivity()(model, x, model(x).argmax(1)), whole)


@pytest.mark.parametrize(
    ("move", "name"),
    [
        (lambda x: x.sort(1)[0] % KINDS, "sort"),
        (lambda x: x.cumsum(1) % KINDS, "cumsum"),
        (lambda x: (x[:, 1:] + x[:, :-1]) % KINDS, "add"),
    ],
)
def test_mixed_tokens_are_refused(move, name):
    with pytest.raises(UnexplainableError, match=f"looked up after '{name}'.*use LRP"):
        Sensitivity()(Reader(move), tokens(), 1)


def test_tokens_as_numbers_are_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(STEPS, 2))
    model.forward = lambda x: model[1](x.float())
    with pytest.raises(UnexplainableError, match="no vectors are looked up at them"):
        Sensitivity()(model, tokens(), 1)


def test_the_network_stays_as_it_is():
    model, x = Reader(WAYS["masked in place"]), tokens()
    before, logits = x.clone(), model(x.clone())
    Sensitivity()(model, x, 1)
    assert torch.equal(x, before)
    assert torch.equal(model(x.clone()), logits)
    assert model.embedding.weight.grad is None
