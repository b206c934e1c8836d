"""Parts of a network that torch runs as a whole are refused by a message, not by an error of torch."""

import copy
import ctypes
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    DeepTaylor,
    Epsilon,
    Gamma,
    GradientTimesInput,
    GuidedBackprop,
    IntegratedGradients,
    NumPyWarning,
    Sensitivity,
    UnexplainableError,
    ZPlus,
)

GRADIENTS = [Sensitivity(), GradientTimesInput(gates="constant"), GuidedBackprop(), IntegratedGradients(2)]
GRAPHS = [LRP(Epsilon(0.1)), LRP(Epsilon(0.1), create_graph=True)]
ADVICE = [
    "Write it out: a Python loop",
    "Compute it with gradients",
    "Use padded tensors",
    "Write it with torch op",
]
seen = pytest.mark.skipif(
    not hasattr(TorchDispatchMode, "supports_higher_order_operators"), reason="this torch has an error of its own"
)


class Network(nn.Module):
    def __init__(self, part):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.out, self.part = nn.Linear(4, 4), nn.Linear(4, 2), part

    def forward(self, x):
        return self.out(self.part(self.first(x)))


def either(h):
    return torch.cond(torch.tensor(True), torch.relu, torch.tanh, (h,))


def looped(h):
    while_loop = pytest.importorskip("torch._higher_order_ops.while_loop").while_loop
    return while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, h.relu()), (torch.tensor(0), h))[1]


def nested(h):
    return torch.nested.as_nested_tensor(list(h.unsqueeze(1)), layout=torch.jagged).to_padded_tensor(0.0).mean(1)


@seen
@pytest.mark.parametrize("method", GRAPHS + GRADIENTS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("part", [either, looped, nested])
@pytest.mark.filterwarnings("ignore")
def test_parts_that_torch_runs_as_a_whole_are_refused_or_explained(part, method):
    x = torch.randn(3, 4)
    try:
        relevance = method(Network(part), x, 0)
    except UnexplainableError as refusal:
        assert any(advice in str(refusal) for advice in ADVICE)  # noqa: PT017
        return
    assert method in GRADIENTS
    expected = Network(torch.relu if part is not nested else lambda h: h)
    torch.testing.assert_close(relevance, method(expected, x, 0))


@pytest.mark.parametrize("method", GRADIENTS, ids=lambda m: type(m).__name__)
def test_parts_of_a_split_that_are_overwritten(method):
    """torch differentiates this in no network; LRP explains it."""

    def part(h):
        one, two = h.split(2, 1)
        one.add_(two)
        return torch.cat([one, two], 1)

    model, x = Network(part), torch.randn(3, 4)
    with pytest.raises(UnexplainableError, match=r"cannot differentiate the network.*explain by LRP"):
        method(model, x, 0)
    plain = Network(lambda h: torch.cat([h[:, :2] + h[:, 2:], h[:, 2:]], 1))
    torch.testing.assert_close(GRAPHS[0](model, x, 0), GRAPHS[0](plain, x, 0))


@pytest.mark.parametrize("method", [GRAPHS[0], *GRADIENTS], ids=lambda m: type(m).__name__)
@pytest.mark.filterwarnings("ignore")
def test_quantised_networks(method):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.out(self.lstm(x)[0][:, -1])

    model = torch.ao.quantization.quantize_dynamic(Reader().eval(), {nn.LSTM, nn.Linear})
    with pytest.raises(UnexplainableError, match=r"before it was quantised|cannot see whether|Compute it with"):
        method(model, torch.randn(3, 6, 4), 0)


@pytest.mark.parametrize(
    "rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), AlphaBeta(2, 1), "deep Taylor"], ids=lambda r: str(r)[:5]
)
@pytest.mark.filterwarnings("ignore")
def test_sparse_weights_are_explained(rule):
    dense, sparse = Network(torch.relu).double(), Network(torch.relu).double()
    pruned = dense.first.weight.detach() * (torch.rand(4, 4) < 0.5)
    dense.first.weight = nn.Parameter(pruned)
    sparse.first.weight = nn.Parameter(pruned.to_sparse_csr())
    x = torch.rand(3, 4, dtype=torch.float64)
    method = DeepTaylor(0, 1) if rule == "deep Taylor" else LRP(rule, start="logit")
    torch.testing.assert_close(method(sparse, x, 0), method(dense, x, 0))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
@pytest.mark.filterwarnings("ignore")
def test_sparse_matrices_made_by_the_network(layout, create_graph):
    edges = (torch.rand(3, 3, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    ways = (lambda h: edges @ h.relu(), lambda h: edges.to_sparse(layout=layout) @ h.relu())
    x = torch.rand(3, 4)
    method = LRP(Epsilon(0.1), start="logit", create_graph=create_graph)
    torch.testing.assert_close(*(method(Network(way), x, lambda y: y[:, 0]) for way in ways))


@pytest.mark.parametrize(
    "part",
    [
        lambda h: torch.from_numpy(np.tanh(h.detach().numpy())),
        lambda h: h * torch.tensor(np.asarray(h.detach())[0].copy()),
        lambda h: torch.from_dlpack(np.exp(np.from_dlpack(h.detach()))),
        lambda h: torch.tensor([[0.5 * number for number in row] for row in h.tolist()]),
        lambda h: torch.tensor([[number.tanh() for number in row] for row in h]),
    ],
)
def test_values_that_go_to_numpy_are_warned_of(part):
    with pytest.warns(NumPyWarning, match="constant for LRP and gets no relevance: write it in torch") as caught:
        LRP(Epsilon(0.1))(Network(lambda h: h.relu() + part(h)), torch.randn(3, 4), 0)
    assert {warning.filename for warning in caught} == {__file__}


def test_arrays_of_what_gets_no_relevance_anyway_are_not():
    """Scales, comparisons, weights, and single numbers that decide where to go on."""

    def part(h):
        scale = torch.from_numpy(h.sigmoid().detach().numpy())
        count = (h > 0).numpy().sum().item() + np.ones(3).sum()
        scale = scale * torch.tensor(data=[1.0] * 4) * torch.tensor(1.0)
        return h * scale if h.max().item() > -100 and count else h

    with warnings.catch_warnings():
        warnings.simplefilter("error", NumPyWarning)
        LRP(Epsilon(0.1))(Network(part), torch.randn(3, 4), 0)


class Labelled(torch.Tensor):
    """A tensor as libraries have them for pictures and other things."""


SAME = {  # made where no operation is seen, and by operations
    "parameter": (nn.Parameter, lambda h: h * 1),
    "parameter that is scaled": (lambda h: nn.Parameter(h) * 2, lambda h: h * 2),
    "frozen parameter": (lambda h: nn.Parameter(h, requires_grad=False), torch.clone),
    "subclass": (lambda h: h.as_subclass(Labelled), lambda h: h * 1),
    "subclass, read in part": (
        lambda h: h.as_subclass(Labelled)[:, [1, 0, 2, 3]],
        lambda h: h[:, [1, 0, 2, 3]],
    ),
    "plain again": (lambda h: h.as_subclass(Labelled).as_subclass(torch.Tensor).tanh(), torch.tanh),
    "deep copy": (copy.deepcopy, torch.clone),
    "deep copies in a list": (lambda h: sum(copy.deepcopy([h, h.relu()])), lambda h: h + h.relu()),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", SAME)
def test_another_tensor_of_the_same_values(name, create_graph):
    method, x = LRP(Epsilon(0.1), create_graph=create_graph), torch.randn(3, 4)
    made, ordinary = (method(Network(lambda h, part=part: h.relu() + part(h)), x, 0) for part in SAME[name])
    torch.testing.assert_close(made, ordinary)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    "part",
    [
        lambda h: torch.empty(0).set_(h.untyped_storage(), 0, (3, 2), (4, 2)).sum(1, keepdim=True),
        lambda h: torch.nested.nested_tensor(list(h)).to_padded_tensor(0.0),
        lambda h: (torch._foreach_mul_([h.clone()], 2.0), h)[1],
    ],
    ids=["other shape", "nested", "several tensors"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_followed_is_refused(part, create_graph):
    message = r"lies in the memory of values|by `set_`|Use padded tensors|overwrites several tensors"
    with pytest.raises(UnexplainableError, match=message):
        LRP(Epsilon(0.1), create_graph=create_graph)(Network(lambda h: h + part(h)), torch.randn(3, 4), 0)


def test_a_copy_of_what_is_gone_is_refused():
    with pytest.raises(UnexplainableError, match="lies in the memory of values that depend on the input"):
        LRP(Epsilon(0.1))(Network(lambda h: h + nn.Parameter(h.relu())), torch.randn(3, 4), 0)


def extension(h, memory=torch.empty_like):
    """The hyperbolic tangent, written to memory as a kernel does."""
    values, result = h.tanh().contiguous(), memory(h, memory_format=torch.contiguous_format)
    ctypes.memmove(result.data_ptr(), values.data_ptr(), values.numel() * values.element_size())
    return result


class Kernel(torch.autograd.Function):
    @staticmethod
    def forward(context, h):
        return extension(h)


@pytest.mark.parametrize(
    "part",
    [
        lambda h: h + extension(h),
        lambda h: h + Kernel.apply(h),
        lambda h: h + extension(h, torch.zeros_like),
        lambda h: h + extension(h, torch.zeros_like)[:, [3, 2, 1, 0]] + torch.zeros(4),
        lambda h: torch.cat([h[:, :2], extension(h)[:, 2:]], 1),
        lambda h: h + extension(h).view(1, -1)[0].view_as(h),
        lambda h: h + extension(h.mT).mT,
        lambda h: torch.where(h > 0, h, extension(h)),
        lambda h: h + torch.add(torch.ones(4), extension(h), alpha=2),
        lambda h: torch.relu_(extension(h)) + h,
        lambda h: h.clone().add_(extension(h)),
        lambda h: h + torch.ones(3, 4).copy_(extension(h)),
        lambda h: h + extension(h).detach(),
        lambda h: (
            h
            + filled(
                (3, 4), lambda m: m[:, :2].copy_(torch.ones(2)), lambda m: m[:, 2:].copy_(extension(h)[:, 2:])
            )
        ),
        lambda h: h + torch.zeros(3, 4).index_put_((torch.tensor([1]),), extension(h)[1]),
        lambda h: h + torch.ones(3, 4).add_(extension(h)),
        lambda h: h + torch.view_as_real(extension(torch.complex(h, h))).sum(-1),
    ],
)
@pytest.mark.parametrize("method", GRAPHS, ids=["", "create_graph"])
def test_values_of_an_extension_are_refused(part, method):
    """Otherwise they would count as constants, and lose their relevance without a word."""
    with pytest.raises(
        UnexplainableError, match=r"Extensions \(in C\+\+|changes tensors in a way that cannot be seen"
    ):
        method(Network(part), torch.randn(3, 4), 0)


def test_an_extension_within_a_module_is_named():
    class Fast(nn.Module):
        def forward(self, h):
            return h + extension(h)

    with pytest.raises(UnexplainableError, match=r"reads values in 'part' \(Fast\) that no operation"):
        LRP()(Network(Fast()), torch.randn(3, 4), 0)


def filled(shape, *how):
    memory = torch.empty(shape)
    for fill in how:
        fill(memory)
    return memory


@pytest.mark.parametrize(
    "constant",
    [
        lambda h: filled(4, lambda m: m.fill_(2.0)),
        lambda h: (
            torch.zeros_like(h).index_fill_(1, torch.tensor([1, 2]), 3.0) + torch.zeros(4) + torch.zeros(3, 4)[:1]
        ),
        lambda h: filled((3, 4), lambda m: m[1:].copy_(torch.ones(2, 4)), lambda m: m[0].fill_(1)),
        lambda h: torch.add(torch.ones(4), torch.ones(4), out=torch.empty(4)),
        lambda h: filled(4, lambda m: torch._foreach_copy_([m], [torch.ones(4)])),
        lambda h: filled((3, 4), lambda m: m.index_put_((torch.arange(3),), torch.ones(3, 4))),
        lambda h: filled(4, lambda m: m.masked_fill_(torch.ones(4, dtype=torch.bool), 2.0)),
        lambda h: filled((3, 4), lambda m: m.scatter_(0, torch.arange(3)[:, None].expand(3, 4), 1.0)),
        lambda h: filled((3, 4), nn.init.eye_)[:1],
        lambda h: torch.empty_like(h).uniform_(1, 2) * torch.zeros_like(torch.empty(4)),
        lambda h: torch.cat([torch.empty(0), torch.ones(4)]),
        lambda h: filled((3, 4), lambda m: m[:, :2].copy_(h[:, :2]), lambda m: m[:, 2:].copy_(h[:, 2:])),
    ],
)
@pytest.mark.parametrize("method", GRAPHS, ids=["", "create_graph"])
def test_memory_that_is_filled_in_sight_is_not_refused(constant, method):
    relevance = method(Network(lambda h: h.relu() + constant(h)), torch.randn(3, 4), 0)
    assert relevance.isfinite().all()
    assert relevance.any()


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("module", [nn.GRU, nn.LSTM, nn.RNN])
def test_errors_of_the_network_itself_stay_what_they_are(module, create_graph):
    class Reader(nn.Module):
        def __init__(self, steps):
            super().__init__()
            self.rnn, self.steps = module(3, 4, batch_first=True), steps

        def forward(self, x):
            return self.rnn(x[:, : self.steps])[0][:, -1] @ torch.ones(4 if self.steps == 0 else 5, 2)

    method = LRP(create_graph=create_graph)
    with pytest.raises(RuntimeError, match="without time steps"):
        method(Reader(0), torch.randn(2, 5, 3), 1)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        method(Reader(5), torch.randn(2, 5, 3), 1)
