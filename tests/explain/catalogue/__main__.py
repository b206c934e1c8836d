"""Writes docs/networks.md: `python -m tests.explain.catalogue`, in the project's folder."""

import warnings
from importlib.metadata import version
from pathlib import Path

import captum.attr
import torch
import zennit.canonizers
import zennit.composites
import zennit.rules
import zennit.torchvision
import zennit.types
from torch import Tensor
from zennit.attribution import Gradient

from rnnx_lightning.explain import UnexplainableError

from .linearised import Linearised, by_autograd
from .methods import METHODS, method
from .network import CATALOGUE, Network, called, explained, precision

PEERS = ["zennit", "captum"]


def ours(network: Network, how: str) -> str:
    """Nothing where the method explains the network, else why not."""
    model, x, arguments = network.make()
    try:
        method(how, network.options)(model, x, network.target, **arguments)
    except UnexplainableError as error:
        return str(error).split(". ")[0]
    return ""


def by_zennit(network: Network, x: Tensor) -> Tensor:
    """Its epsilon rule, with the canonizer for ResNets, which also merges BatchNorm."""
    rules = [
        (zennit.types.Activation, zennit.rules.Pass()),
        (zennit.types.Linear, zennit.rules.Epsilon(1e-9)),
        (zennit.types.AvgPool, zennit.rules.Norm(1e-9)),
    ]
    composite = zennit.composites.LayerMapComposite(rules, canonizers=[zennit.torchvision.ResNetCanonizer()])
    model = network.make()[0]
    with Gradient(
        model=model, composite=composite, attr_output=lambda output: at_target(output, network)
    ) as attributor:
        return attributor(x.clone(), None)[1]


def by_captum(network: Network, x: Tensor) -> Tensor:
    """Its epsilon rule, which it takes where it knows the layer."""
    model = network.make()[0]
    target = int(network.target) if isinstance(network.target, int) else model(x).argmax(1)
    return captum.attr.LRP(model).attribute(x.clone().requires_grad_(), target).detach()


def at_target(output: Tensor, network: Network) -> Tensor:
    """The output, with zeros beside the explained number."""
    (mask,) = torch.autograd.grad(explained(leaf := output.detach().requires_grad_(), network.target).sum(), leaf)
    return output.detach() * mask


def by_peer(peer: str, network: Network) -> str:
    """Nothing where a peer's LRP-0 is right, else what happens."""
    model, x, arguments = network.make()
    if not isinstance(x, Tensor) or not x.is_floating_point() or arguments:
        return "no such input"
    if peer == "captum" and not (network.target is None or isinstance(network.target, int)):
        return "no such target"
    try:
        expected = by_autograd(Linearised, network, model, x, {}, called, explained, lambda g, leaf: g * leaf)[0][
            0
        ]
        relevance = {"zennit": by_zennit, "captum": by_captum}[peer](network, x)
    except Exception as error:  # whatever a peer says
        return type(error).__name__
    off = float((relevance - expected).abs().max() / expected.abs().max())
    return "" if off < 1e-3 else "differs"


def table(reasons: dict[str, int]) -> list[str]:
    """One row a network, one column a method or peer."""
    lines, counts = [], dict.fromkeys([*METHODS, *PEERS], 0)
    for name, network in CATALOGUE.items():
        cells = []
        with precision(network.dtype):
            for column in counts:
                reason = ours(network, column) if column in METHODS else by_peer(column, network)
                counts[column] += not reason
                number = reasons.setdefault(reason, len(reasons) + 1) if reason and column in METHODS else None
                cells.append(f"refused [{number}]" if number else reason or "yes")
        options = "".join(f", with {key}={value!r}" for key, value in network.options.items())
        lines.append(f"| {name} | {network.contains}{options} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    total = " | ".join(f"**{100 * count / len(CATALOGUE):.0f} %**" for count in counts.values())
    lines.append(f"| **{len(CATALOGUE)} networks** | | {total} |")
    return lines


def main() -> None:
    """Explain everything and write the page."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    reasons: dict[str, int] = {}
    rows = table(reasons)
    columns = ["network", "what it contains", *METHODS, *PEERS]
    page = [
        "# Which networks are explained",
        "",
        "Common networks, small and with random weights. They are explained unchanged: nothing is copied, folded or left",
        "out. *yes*: explained, and the relevance is right (checked by `tests/explain/test_catalogue.py`). *refused*: an",
        "error says why (see below the table). *with*: an option that the composite needs.",
        "",
        f"The last two columns are the epsilon rule of zennit {version('zennit')} (with its canonizer for ResNets and",
        f"BatchNorm, and none made for the network) and of captum {version('captum')}. *yes*: equal to LRP-0, up to a",
        "thousandth of the largest relevance. *differs*: a different relevance, without an error. *no such input*: the",
        "library does not take tokens, several inputs or further arguments; *no such target*: nor this output. Otherwise:",
        "the type of the error.",
        "",
        "This page is generated by `python -m tests.explain.catalogue`.",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *rows,
        "",
        "Messages of the refusals:",
        "",
        *(f"{number}. {reason}" for reason, number in reasons.items()),
    ]
    Path("docs/networks.md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
