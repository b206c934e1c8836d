"""On a GPU the same relevance as on the CPU."""

import pytest
import torch

from rnnx_lightning import architectures
from rnnx_lightning.explain import LRP, DeepTaylor, Epsilon, GuidedBackprop, Sensitivity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
METHODS = [Sensitivity(), GuidedBackprop(), DeepTaylor(), LRP(alpha=1.5, beta=0.5), LRP(Epsilon())]


@pytest.mark.parametrize("method", METHODS, ids=["SA", "GB", "DTD", "alpha-beta", "epsilon"])
@pytest.mark.parametrize("network", ["Shallow", "Deep", "ConvDeep", "RLSTM", "RGRU", "LSTM", "GRU"])
def test_relevance_equals_that_of_the_cpu(network, method):
    model = getattr(architectures, network)().double().eval()
    x = torch.rand(4, 1, 28, 84, dtype=torch.float64) * 2 - 1
    expected = method(model, x, 3)
    relevance = method(model.cuda(), x.cuda(), 3)
    assert relevance.is_cuda
    torch.testing.assert_close(relevance.cpu(), expected, rtol=1e-8, atol=1e-12)
