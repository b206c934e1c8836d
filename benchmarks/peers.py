"""What other libraries need in order to explain the same networks.

zennit and captum keep one input a module, so that a module that is called once a time step is explained with its
last input. They are right only on a copy with one module a time step, which is what is made here.
"""

import copy
from collections.abc import Callable

import torch
from captum import attr
from torch import Tensor, nn
from zennit.composites import LayerMapComposite
from zennit.rules import AlphaBeta, Epsilon, ZPlus
from zennit.types import AvgPool, Convolution, Linear

from rnnx_lightning.architectures import ConvDeep, Deep, RecurrentNetwork

STEPS = 12


class Unrolled(nn.Module):
    """A network of the Deep family with one module a time step and W [i_t, r_{t-1}] as one layer.

    Args:
        network: `Deep` or `ConvDeep`.
    """

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        assert isinstance(network, Deep | ConvDeep)
        cell = network.cell
        both = torch.cat([cell.from_input.weight, cell.from_recurrent.weight], dim=1).detach()
        self.columns = network.columns
        self.fronts = nn.ModuleList(copy.deepcopy(network.front) for _ in range(STEPS))
        for front in self.fronts:
            for name, layer in front.named_children():
                if not list(layer.children()) and "Pool" in type(layer).__name__:
                    setattr(front, name, nn.AvgPool2d(2, ceil_mode=True, divisor_override=2))
        self.hidden = nn.ModuleList(_linear(both) for _ in range(STEPS))
        self.recurrent = nn.ModuleList(_linear(cell.to_recurrent.weight.detach()) for _ in range(STEPS - 1))
        self.hidden_relu = nn.ModuleList(nn.ReLU() for _ in range(STEPS))
        self.recurrent_relu = nn.ModuleList(nn.ReLU() for _ in range(STEPS - 1))
        self.output = copy.deepcopy(network.output)
        self.width = cell.from_recurrent.in_features

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 28, 84) to logits."""
        state = image.new_zeros(len(image), self.width)
        for step, part in enumerate(image.split(self.columns, dim=3)):
            features = torch.cat([self.fronts[step](part), state], dim=1)
            hidden = self.hidden_relu[step](self.hidden[step](features))
            if step < STEPS - 1:
                state = self.recurrent_relu[step](self.recurrent[step](hidden))
        return self.output(hidden)


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone())
    return layer


def by_zennit(composite: LayerMapComposite, network: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    """Relevance (B, ...) by a composite of zennit, from the logits of the labels (B,)."""
    x = x.detach().clone().requires_grad_()
    with composite.context(network) as explained:
        logits = explained(x)
        start = torch.zeros_like(logits).scatter_(1, label[:, None], logits.detach().gather(1, label[:, None]))
        return torch.autograd.grad(logits, x, start)[0]


def zennit_methods(network: RecurrentNetwork, image: Tensor, label: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Zennit's rules on the unrolled copy, by our methods' names."""
    unrolled = Unrolled(network).to(image.device).eval()

    def explain(rule: Callable[[], object]) -> Callable[[], Tensor]:
        composite = LayerMapComposite([(Linear, rule()), (Convolution, rule()), (AvgPool, rule())])
        return lambda: by_zennit(composite, unrolled, image, label)

    return {
        "Epsilon": explain(Epsilon),
        "ZPlus": explain(ZPlus),
        "LRP 1.5/0.5": explain(lambda: AlphaBeta(1.5, 0.5)),
    }


def captum_methods(network: nn.Module, image: Tensor, label: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Captum's methods on the network itself, by our methods' names."""
    explainers = {
        "Sensitivity": attr.Saliency(network),
        "GuidedBackprop": attr.GuidedBackprop(network),
        "GradientTimesInput": attr.InputXGradient(network),
    }
    integrated = attr.IntegratedGradients(network)

    def run(explainer: attr.GradientAttribution) -> Callable[[], Tensor]:
        return lambda: explainer.attribute(image.detach().clone().requires_grad_(), target=label)

    methods = {name: run(explainer) for name, explainer in explainers.items()}
    methods["IntegratedGradients"] = lambda: integrated.attribute(
        image.detach().clone(), baselines=-1.0, target=label, n_steps=32, internal_batch_size=len(image)
    )
    return methods


def captum_lrp_refusal(network: nn.Module, image: Tensor, label: Tensor) -> str:
    """What captum's LRP says to the network; empty where it explains it."""
    try:
        attr.LRP(copy.deepcopy(network)).attribute(image[:2].detach().clone().requires_grad_(), target=label[:2])
    except (RuntimeError, TypeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return ""
