"""Every network of the package: conservation, agreement, and nothing left behind."""

import copy

import pytest
import torch
from torch import nn

from rnnx_lightning import architectures
from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    DeepTaylor,
    Epsilon,
    Gamma,
    GradientTimesInput,
    GuidedBackprop,
    Input,
    IntegratedGradients,
    Random,
    Sensitivity,
    SmoothGrad,
    WSquare,
    ZPlus,
)

RELU_NETWORKS = ["Shallow", "Deep", "DeepV2", "ConvDeep", "RLSTM", "ConvRLSTM", "RGRU", "Evidence", "ConvEvidence"]
NETWORKS = [*RELU_NETWORKS, "LSTM", "GRU"]
METHODS = {
    "Sensitivity": Sensitivity(),
    "GuidedBackprop": GuidedBackprop(),
    "GradientTimesInput": GradientTimesInput(),
    "IntegratedGradients": IntegratedGradients(steps=3),
    "SmoothGrad": SmoothGrad(samples=3),
    "DeepTaylor": DeepTaylor(),
    "AlphaBeta": LRP(alpha=1.5, beta=0.5),
    "Epsilon": LRP(Epsilon(), start="positive"),
    "Gamma": LRP(Gamma(), start="positive"),
    "WSquare": LRP(Composite(ZPlus(), pixels=WSquare())),
    "Random": Random(),
    "Input": Input(),
}
CONSERVING = ["DeepTaylor", "AlphaBeta", "Gamma", "WSquare"]


@pytest.fixture(params=NETWORKS)
def network(request):
    return getattr(architectures, request.param)().eval()


def pictures(count=4, dtype=torch.float32):
    return torch.rand(count, 1, 28, 84, dtype=dtype) * 2 - 1


@pytest.mark.parametrize("method", METHODS)
def test_relevance_has_the_shape_of_the_input(method, network):
    x = pictures()
    relevance = METHODS[method](network, x)
    assert relevance.shape == x.shape
    assert relevance.dtype == x.dtype
    assert relevance.isfinite().all()
    assert not relevance.requires_grad
    assert relevance.abs().sum() > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("method", CONSERVING)
@pytest.mark.parametrize("name", RELU_NETWORKS)
def test_relevance_is_conserved(name, method, dtype, tolerance):
    network = getattr(architectures, name)().to(dtype)
    explanation = METHODS[method].explain(network, pictures(8, dtype))
    assert (explanation.explained > 0).sum() >= 4
    arrived = explanation.relevance.flatten(1).sum(1)
    torch.testing.assert_close(arrived, explanation.explained, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", ["Shallow", "Deep", "DeepV2", "ConvDeep"])
def test_relevance_is_conserved_at_every_time_step(name, dtype, tolerance):
    """What reaches h_t goes to the pixels of step t and to h_{t-1}, and to nothing else."""
    network = getattr(architectures, name)().to(dtype)
    for method in (DeepTaylor(), LRP(alpha=1.5, beta=0.5)):
        explanation = method.explain(network, pictures(4, dtype), layers=["cell.hidden", "cell.recurrent"])
        hidden = torch.stack([part.sum(1) for part in explanation.layers["cell.hidden"]])
        recurrent = torch.stack([part.sum(1) for part in explanation.layers["cell.recurrent"]])
        pixels = explanation.relevance.unflatten(3, (12, 7)).sum(dim=(1, 2, 4)).T
        scale = explanation.explained.max()
        close = {"rtol": tolerance, "atol": float(tolerance * scale)}
        torch.testing.assert_close(hidden[-1], explanation.explained, **close)
        torch.testing.assert_close(recurrent, hidden[:-1], **close)
        torch.testing.assert_close(hidden[0], pixels[0], **close)
        torch.testing.assert_close(hidden[1:], pixels[1:] + recurrent, **close)


def test_epsilon_tends_to_gradient_times_input_without_biases():
    for name in ("Shallow", "Deep", "ConvDeep"):
        network, x = getattr(architectures, name)().double(), pictures(4, torch.float64)
        target = network.eval()(x).argmax(1)
        product = GradientTimesInput()(network, x, target)
        torch.testing.assert_close(
            LRP(Epsilon(0), start="positive")(network, x, target), product, rtol=1e-8, atol=1e-14
        )


def test_alpha_one_beta_zero_is_z_plus(network):
    x = pictures()
    assert torch.equal(LRP(AlphaBeta(1, 0))(network, x), LRP(ZPlus())(network, x))


@pytest.mark.parametrize("method", ["Sensitivity", "GuidedBackprop", "DeepTaylor", "AlphaBeta"])
def test_a_batch_equals_one_by_one(method, network):
    network, x = network.double(), pictures(3, torch.float64)
    target = torch.tensor([1, 5, 2])
    batch = METHODS[method](network, x, target)
    singles = [METHODS[method](network, x[i : i + 1], int(target[i])) for i in range(3)]
    torch.testing.assert_close(batch, torch.cat(singles), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_the_layout_in_memory_changes_nothing(method):
    torch.manual_seed(0)
    network, x = architectures.ConvDeep().double().eval(), pictures(3, torch.float64)
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    expected = METHODS[method](plain, x, 3)
    torch.testing.assert_close(METHODS[method](network, x, 3), expected, rtol=1e-9, atol=1e-14)


class ClonedEachStep(nn.Module):
    """Calls a new deep copy of a layer each time: shared weights, no shared module."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *args):
        return copy.deepcopy(self.layer)(*args)


@pytest.mark.parametrize("method", ["DeepTaylor", "AlphaBeta", "Epsilon"])
def test_shared_layers_equal_copies_of_their_own(method, network):
    x = pictures()
    expected = METHODS[method](network, x, 3)
    for module in [*network.cell.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, nn.Linear | nn.ReLU | nn.Sigmoid | nn.Tanh):
                setattr(module, name, ClonedEachStep(child))
                if isinstance(child, nn.Linear):
                    getattr(module, name).out_features = child.out_features
                    getattr(module, name).in_features = child.in_features
    torch.testing.assert_close(METHODS[method](network, x, 3), expected)


def test_gates_get_nothing_in_the_lstm():
    network = architectures.RLSTM().double()
    layers = ["cell.gates", "cell.gates_input", "cell.candidate", "cell.output"]
    explanation = LRP(ZPlus()).explain(network, pictures(2, torch.float64), layers=layers)
    for name in ("cell.gates", "cell.gates_input"):
        assert all((part == 0).all() for part in explanation.layers[name])
    cell = torch.stack([part.sum(1) for part in explanation.layers["cell.output"]])
    torch.testing.assert_close(cell[-1], explanation.explained)
    assert len(explanation.layers["cell.candidate"]) == 12
