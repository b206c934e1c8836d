"""On a GPU the same relevance as on the CPU."""

import copy

import pytest
import torch
from catalogue import CATALOGUE, called, explained, precision, tensors
from catalogue.methods import METHODS as NAMES
from catalogue.methods import method as named
from readers import KINDS, Reader, assert_equal, data
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from rnnx_lightning import architectures
from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    DeepTaylor,
    Epsilon,
    GradientTimesInput,
    GuidedBackprop,
    InChunks,
    IntegratedGradients,
    Sensitivity,
    UnexplainableError,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]
METHODS = {
    "SA": Sensitivity(),
    "GB": GuidedBackprop(),
    "DTD": DeepTaylor(),
    "alpha-beta": LRP(alpha=1.5, beta=0.5),
    "epsilon": LRP(Epsilon()),
}
GRADIENTS = {
    "free": Sensitivity(),
    "constant": Sensitivity(gates="constant"),
    "guided": GuidedBackprop(gates="constant"),
    "integrated": IntegratedGradients(baseline=0, steps=4),
}
SHAPES = {"1 layer": {}, "2 layers, both ways": {"num_layers": 2, "bidirectional": True, "dropout": 0.5}}


def moved(x):
    """The same on the GPU."""
    if isinstance(x, dict):
        return {key: moved(value) for key, value in x.items()}
    if isinstance(x, tuple | list) and not isinstance(x, PackedSequence):
        return type(x)(moved(value) for value in x)
    return x.cuda() if isinstance(x, torch.Tensor | PackedSequence) else x


class Placed(nn.Module):
    """A network whose own constants, such as `torch.zeros`, are made on the GPU."""

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network).cuda()

    def forward(self, *args, **kwargs):
        with torch.device("cuda"):
            return self.network(*args, **kwargs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ["Shallow", "Deep", "ConvDeep", "RLSTM", "ConvRLSTM", "RGRU", "LSTM", "GRU"])
def test_relevance_equals_that_of_the_cpu(network, method):
    model = getattr(architectures, network)().double().eval()
    x = torch.rand(4, 1, 28, 84, dtype=torch.float64) * 2 - 1
    expected = METHODS[method](model, x, 3)
    relevance = METHODS[method](model.cuda(), x.cuda(), 3)
    assert relevance.is_cuda
    torch.testing.assert_close(relevance.cpu(), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("products", ["highest", "high"])
@pytest.mark.parametrize("method", METHODS)
def test_single_precision_is_not_rounded_further(method, products):
    """TF32 would leave errors of 1e-3."""
    torch.manual_seed(0)
    model, x = architectures.ConvDeep().eval(), torch.rand(16, 1, 28, 84) * 2 - 1
    expected = METHODS[method](copy.deepcopy(model).double(), x.double(), 3)
    torch.set_float32_matmul_precision(products)
    try:
        relevance = METHODS[method](model.cuda(), x.cuda(), 3)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert_equal(relevance.double().cpu(), expected, 3e-5)


@pytest.mark.parametrize("how", NAMES)
@pytest.mark.parametrize("name", CATALOGUE)
def test_networks_as_people_have_them(name, how):
    network = CATALOGUE[name]
    with precision(torch.float64):
        model, x, arguments = network.make()
        there = Placed(model).eval()
        try:
            output = explained(called(there, moved(x), moved(arguments)), network.target).cpu()
        except (RuntimeError, NotImplementedError) as error:
            pytest.skip(f"the network does not run on a GPU: {error}")
        method = named(how, network.options)
        if network.refused and how != "guided backprop":
            with pytest.raises(UnexplainableError, match=network.refused):
                method(there, moved(x), network.target, **moved(arguments))
            return
        here = explained(called(model, x, arguments), network.target)
        expected = tensors(method(model, x, network.target, **arguments))
        relevance = tensors(method(there, moved(x), network.target, **moved(arguments)))
    # Of some activations, such as hard-swish, a GPU knows only 8 digits.
    apart = float(((output - here) / here).abs().max())
    scale = max(1e-6, 1e4 * apart) * max(float(part.abs().max()) for part in expected)
    for one, other in zip(relevance, expected, strict=True):
        assert one.is_cuda
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=scale)


@pytest.mark.parametrize("method", GRADIENTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_recurrent_modules_in_eval_mode(kind, shape, method):
    (x, target), model = data(), Reader(kind, "mean", **SHAPES[shape]).eval()
    expected = GRADIENTS[method](model, x, target)
    relevance = GRADIENTS[method](model.cuda(), x.cuda(), target.cuda())
    assert not model.training
    assert not model.rnn.training
    assert_equal(relevance.cpu(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_packed_sequences(kind):
    x, model = data()[0], Reader(kind).eval().rnn

    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = model

        def forward(self, x):
            state = self.rnn(x)[1]
            return (state[0] if isinstance(state, tuple) else state)[0]

    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 4, 2]), batch_first=True)
    expected = Sensitivity()(Packed(), packed, 1)
    relevance = Sensitivity()(Packed().cuda(), packed.cuda(), 1)
    torch.testing.assert_close(relevance.data.cpu(), expected.data, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", [LRP(Epsilon(1e-3)), LRP(AlphaBeta(1.5, 0.5)), DeepTaylor(low=-4, high=4)])
@pytest.mark.parametrize("kind", KINDS)
def test_segments(kind, method):
    (x, target), model = data(), Reader(kind, "all steps", **SHAPES["2 layers, both ways"]).eval()
    expected = method(model, x, target)
    relevance = InChunks(method, examples=2, steps=2)(model.cuda(), x.cuda(), target.cuda())
    assert_equal(relevance.cpu(), expected)


@pytest.mark.parametrize(
    "method",
    [
        LRP(Epsilon(1e-3), create_graph=True),
        DeepTaylor(low=-4, high=4, create_graph=True),
        GradientTimesInput(create_graph=True),
        Sensitivity(gates="constant", create_graph=True),
    ],
    ids=["epsilon", "DTD", "gradient x input", "SA"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_relevance_with_a_graph(kind, method):
    (x, target), model = data(), Reader(kind, "all steps").eval()

    def gradients(model, x, target):
        loss = method(model, x, target).square().sum()
        return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)

    expected = gradients(model, x, target)
    for one, other in zip(gradients(model.cuda(), x.cuda(), target.cuda()), expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-7, atol=1e-10)
