"""What is compared in `benchmarks/` computes the same; how long it takes is no matter here."""

import pytest
import torch

from benchmarks.measure import median_seconds, peak_bytes
from benchmarks.peers import Unrolled, captum_lrp_refusal, captum_methods, zennit_methods
from benchmarks.recurrent import EPSILON as EPSILON_IN_NUMPY
from benchmarks.recurrent import InNumPy, Reader
from benchmarks.totals import PACKAGES, compared
from benchmarks.train import StepByStep, flops_of_a_step
from rnnx_lightning.architectures import RLSTM, ConvDeep, Deep
from rnnx_lightning.explain import LRP, Composite, Epsilon, GuidedBackprop

CPU = torch.device("cpu")


@pytest.fixture
def batch():
    return torch.rand(3, 1, 28, 84) * 2 - 1, torch.tensor([1, 2, 3])


@pytest.mark.parametrize("make", [Deep, ConvDeep])
def test_zennit_explains_the_same_network(make, batch):
    network, (image, label) = make().eval(), batch
    torch.testing.assert_close(Unrolled(network)(image), network(image), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        network.output[-1].weight.abs_()  # all logits are positive: zennit starts from negative ones, too
    theirs = zennit_methods(network.double(), image.double(), label)["Epsilon"]()
    ours = LRP(Epsilon(1e-6))(network, image.double(), label)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)


def test_captum_explains_the_same_network(batch):
    network, (image, label) = RLSTM().eval(), batch
    theirs = captum_methods(network, image, label)["GuidedBackprop"]()
    torch.testing.assert_close(theirs.square(), GuidedBackprop()(network, image, label))
    assert captum_lrp_refusal(network, image, label)


@pytest.mark.parametrize("make", [Deep, ConvDeep, RLSTM])
def test_the_plain_way_computes_the_same(make, batch):
    network = make().eval()
    torch.testing.assert_close(StepByStep(network)(batch[0]), network(batch[0]), rtol=1e-4, atol=1e-5)


def test_memory_and_operations_are_counted():
    assert peak_bytes(lambda: torch.empty(1000, dtype=torch.float32), CPU) >= 4000
    seconds = median_seconds({"one": lambda: None, "two": lambda: None}, CPU, repeats=1)
    assert set(seconds) == {"one", "two"}
    # Three products a layer, forward and two backward, less the first layer's towards the pixels.
    assert flops_of_a_step(Deep(), 10, CPU) > 10 * 12 * 2 * 2 * 152_896 / 2


def test_plain_numpy_explains_the_same_lstm():
    network, x = Reader(5, 4).double().eval(), torch.randn(2, 6, 5, dtype=torch.float64)
    ours = LRP(Composite(Epsilon(EPSILON_IN_NUMPY), memory="per_step"))(network, x, 1)
    theirs = [torch.from_numpy(InNumPy(network)(example.numpy(), 1)) for example in x]
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", PACKAGES)
def test_all_packages_explain_the_same_feed_forward_network(package):
    found = compared("feed-forward", PACKAGES[package])
    assert found["off the logit by"] < 1e-5
    assert found["cosine"] > 1 - 1e-6
