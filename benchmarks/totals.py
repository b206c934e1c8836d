"""The same networks, as they are, by every package that explains with LRP: is all relevance there, and how fast?

Epsilon's rule with almost no epsilon and without biases: relevance must add up to the logit, and where ReLUs are
the only nonlinearity, it is gradient times input. One example at a time, since autoLRP starts from one number.
"""

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import autolrp
import torch
from captum import attr
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from zennit.composites import LayerMapComposite
from zennit.rules import Epsilon as ZennitEpsilon
from zennit.types import Convolution, Linear

from benchmarks.explain import reference
from benchmarks.measure import median_seconds
from benchmarks.peers import by_zennit
from benchmarks.recurrent import Reader
from rnnx_lightning.architectures import RLSTM, Deep
from rnnx_lightning.explain import LRP, Epsilon, GradientTimesInput

EPSILON = 1e-9
EXAMPLES = 8


class Convolutional(nn.Module):
    """A feed-forward network: two convolutions, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU()
        )
        self.reader = nn.Sequential(nn.Linear(16 * 4 * 18, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 84) to (B, 10)."""
        return self.reader(self.front(x).flatten(1))


class ImageTransformer(VisionTransformer):
    """torchvision's, small, for pictures of 32 x 32 pixels."""

    def __init__(self) -> None:
        super().__init__(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10)
        nn.init.normal_(self.heads[0].weight)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "feed-forward": (Convolutional, (1, 28, 84)),
    "Deep: layers shared by steps": (Deep, (1, 28, 84)),
    "RLSTM": (RLSTM, (1, 28, 84)),
    "nn.LSTM, both directions": (lambda: Reader(16, 64), (30, 16)),
    "vision transformer": (ImageTransformer, (3, 32, 32)),
}
ONLY_RELUS = ("feed-forward", "Deep: layers shared by steps")
Explain = Callable[[nn.Module, Tensor, int], Tensor]


def as_rnnx(network: nn.Module, x: Tensor, target: int) -> Tensor:
    """(1, ...) to relevance of the same shape, as the others below."""
    return LRP(Epsilon(EPSILON), start="logit")(network, x, target)


def as_autolrp(network: nn.Module, x: Tensor, target: int) -> Tensor:
    """Attention weights are constants; it starts from 1."""
    wrapped = autolrp.tensor(x.clone())
    logit = network(wrapped)[0, target]
    rules = {**autolrp.BASE, **autolrp.CPLRP}
    logit.lrp(config=autolrp.LRPConfig(rule=rules, eps=EPSILON))
    relevance: Tensor = wrapped.relevance
    return relevance * float(logit.detach())


def as_zennit(network: nn.Module, x: Tensor, target: int) -> Tensor:
    """The rule for linear layers and convolutions; all else passes the gradient."""
    composite = LayerMapComposite([(kind, ZennitEpsilon(EPSILON)) for kind in (Linear, Convolution)])
    return by_zennit(composite, network, x, torch.tensor([target]))


def as_captum(network: nn.Module, x: Tensor, target: int) -> Tensor:
    """Its epsilon rule for each layer that can have one."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.rule = EpsilonRule(EPSILON)
    relevance: Tensor = attr.LRP(network).attribute(x.clone().requires_grad_(), target=target)
    return relevance.detach()


PACKAGES: dict[str, Explain] = {
    "rnnx": as_rnnx,
    "autolrp": as_autolrp,
    "zennit": as_zennit,
    "captum": as_captum,
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A network of random weights without biases, and its examples; both float64."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make().double().eval()
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if "bias" in parameter_name:
                parameter.zero_()
    return network, torch.rand(EXAMPLES, *shape, dtype=torch.float64) * 2 - 1


def compared(name: str, explain: Explain) -> dict[str, Any]:
    """How far totals are from the logit, and their cosine to gradient times input; medians of the examples.

    Returns:
        "off the logit by", relative; where ReLUs are the only nonlinearity, "cosine"; or what a "refusal" says.
    """
    network, examples = made(name)
    try:
        relevance = torch.cat([explain(network, x[None], 1) for x in examples]).detach()
    except (RuntimeError, TypeError, AssertionError) as error:
        return {"refusal": str(error).splitlines()[0]}
    network, _ = made(name)  # anew, because captum leaves its rules and hooks on a network
    logit = network(examples)[:, 1].detach()
    found = {"off the logit by": float((relevance.flatten(1).sum(1) / logit - 1).abs().median())}
    if name in ONLY_RELUS:
        expected = GradientTimesInput()(network, examples, 1)
        found["cosine"] = float(torch.cosine_similarity(relevance.flatten(1), expected.flatten(1)).median())
    return found


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a network and package: as `compared`, and time beside a gradient's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [row for name in NETWORKS for row in _of_all(name, options)]


def _of_all(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = {package: compared(name, explain) for package, explain in PACKAGES.items()}
    network, examples = made(name)
    one, label = examples[:1], torch.tensor([1])

    def run(explain: Explain) -> Callable[[], Tensor]:
        return lambda: explain(network, one, 1)

    able = {package: run(PACKAGES[package]) for package, row in rows.items() if "refusal" not in row}
    seconds = median_seconds({"gradient": reference(network, one, label), **able}, options.device, options.repeats)
    return [
        {"network": name, "package": package, **row}
        | ({"time": seconds[package] / seconds["gradient"]} if package in seconds else {})
        for package, row in rows.items()
    ]
