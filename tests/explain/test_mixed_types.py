"""Networks in float32 that also compute with float64 numbers, as NumPy's are."""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, GuidedBackprop, Sensitivity, ZPlus

K = torch.linspace(0.5, 1.5, 3, dtype=torch.float64)
WIDER = {
    "a sum": lambda y: y + K,
    "a difference": lambda y: K - y,
    "a product": lambda y: y * K,
    "a quotient": lambda y: y / K,
    "cat": lambda y: torch.cat([y, K.expand(len(y), 3)], 1),
    "where": lambda y: torch.where(y > 0, y, K),
    "a matrix product": lambda y: (y + 0 * K) @ K.diag(),
    "two terms": lambda y: y + y.double() * K,
    "stack": lambda y: torch.stack([y.double(), y + 0 * K], 1).sum(1),
    "a mean in float64": lambda y: y.mean(1, dtype=torch.float64),
    "cumsum in float64": lambda y: y.cumsum(1, dtype=torch.float64),
    "softmax in float64": lambda y: y.softmax(1, dtype=torch.float64) * y,
    "maximum": lambda y: torch.maximum(y.double(), K),
    "addcmul": lambda y: torch.addcmul(y.double(), K, K),
    "written into float64": lambda y: torch.zeros(len(y), 3, dtype=torch.float64).copy_(y),
}
METHODS = {
    "epsilon": LRP(Epsilon(1e-6)),
    "z+": LRP(ZPlus(), start="logit"),
    "alpha-beta": LRP(AlphaBeta(2, 1), start="logit"),
    "gamma": LRP(Gamma(0.25)),
    "biases spread": LRP(Composite(Epsilon(1e-6), bias="spread")),
    "sums closed": LRP(Composite(Epsilon(1e-6), sums="closed")),
    "with a graph": LRP(Epsilon(1e-6), create_graph=True),
    "SA": Sensitivity(),
    "GB": GuidedBackprop(),
}


class Widens(nn.Module):
    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.end = nn.Linear(4, 5), nn.Linear(5, 3), end

    def forward(self, x):
        return self.end(self.last(torch.relu(self.first(x))))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("end", WIDER)
def test_relevance_is_that_of_the_network_in_float64(end, method):
    model, wide, x = Widens(WIDER[end]), Widens(WIDER[end]).double(), torch.rand(2, 4)
    wide.load_state_dict(model.state_dict())
    target = None if end == "a mean in float64" else 1
    relevance = METHODS[method](model, x, target)
    assert relevance.dtype is torch.float32
    torch.testing.assert_close(relevance.double(), METHODS[method](wide, x.double(), target), rtol=1e-3, atol=1e-5)
