"""The data of the page: relevance by several networks and methods, small enough to embed."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rnnx_lightning.explain import LRP, Attributor
from rnnx_lightning.explain.inputs import output_at
from rnnx_lightning.metrics.functional import majority_cosine_similarity, sample_relevance
from rnnx_lightning.view.layers import inner_layers, over_time

STRIP = 32  # largest number of columns shown per layer and step; neighbouring units are summed
DIGITS = 7  # significant digits of numbers that are not quantised


class Named(NamedTuple):
    """A network and its name on the page."""

    name: str
    network: nn.Module


def quantised(values: Tensor) -> dict[str, Any]:
    """Numbers as int8 in base64: value = scale * integer, off by at most 1/254 of the largest magnitude."""
    scale = max(float(values.abs().amax()) / 127, 1e-38)
    integers = (values.double() / scale).round().clamp(-127, 127).to(torch.int8).cpu()
    return {"scale": scale, "values": base64.b64encode(integers.contiguous().numpy().tobytes()).decode()}


def rounded(values: Tensor) -> list[float]:
    """Values as Python floats with few digits."""
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def strips(relevance: Tensor) -> Tensor:
    """From (T, U) relevance to (T, at most 32): sums of neighbouring units, so that rows keep their sums."""
    width = -(-relevance.shape[1] // STRIP)
    missing = -relevance.shape[1] % width
    return torch.nn.functional.pad(relevance, (0, missing)).unflatten(1, (-1, width)).sum(2)


def recorded(
    networks: Sequence[Named],
    methods: Mapping[str, Attributor],
    image: Tensor,
    label: Tensor,
    majority: Tensor,
    class_names: Sequence[str],
    numbers: Sequence[int],
) -> dict[str, Any]:
    """Explain sequences by all networks and methods, as data for the page.

    Args:
        networks: in eval mode; they map pictures (B, 1, H, W) to logits.
        methods: by name. For relevance propagation (`LRP`), the relevance of inner layers is included.
        image: (B, 1, H, S * W) in [-1, 1].
        label: (B,) true classes, which are explained.
        majority: (B, S) bool.
        class_names: by label.
        numbers: the numbers of the sequences, as shown on the page.

    Returns:
        A dict that can be written as JSON; `results[network][sequence]` holds the explanations.
    """
    grey = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
    return {
        "height": image.shape[2],
        "width": image.shape[3],
        "samples": majority.shape[1],
        "steps": [image.shape[3] // int(getattr(network, "columns", image.shape[3])) for _, network in networks],
        "classes": list(class_names),
        "networks": [name for name, _ in networks],
        "methods": list(methods),
        "sequences": [
            {
                "number": number,
                "label": int(label[row]),
                "majority": majority[row].tolist(),
                "image": base64.b64encode(grey[row].contiguous().numpy().tobytes()).decode(),
            }
            for row, number in enumerate(numbers)
        ],
        "results": [_results(network, methods, image, label, majority) for _, network in networks],
    }


def _results(
    network: nn.Module, methods: Mapping[str, Attributor], image: Tensor, label: Tensor, majority: Tensor
) -> list[dict[str, Any]]:
    """The results of one network, one dict per sequence."""
    logits = output_at(network, image)
    rows: list[dict[str, Any]] = [
        {"prediction": int(one.argmax()), "logits": rounded(one), "methods": {}} for one in logits
    ]
    for name, method in methods.items():
        layers: dict[str, Tensor] = {}
        if isinstance(method, LRP):
            explanation = method.explain(network, image, label, layers=inner_layers(network, image))
            relevance = explanation.relevance
            layers = over_time(explanation.layers, len(image))
        else:
            relevance = method(network, image, label)
        if not bool(relevance.isfinite().all()):
            raise ValueError(f"the relevance by {name} is NaN or infinite somewhere, and cannot be shown")
        per_sample = sample_relevance(relevance, majority.shape[1])
        cosine = majority_cosine_similarity(relevance, majority)
        for number, row in enumerate(rows):
            row["methods"][name] = {
                **quantised(relevance[number]),
                "per_sample": rounded(per_sample[number]),
                "cosine": rounded(cosine[number][None])[0],
                "layers": [_layer(layer, part[number]) for layer, part in layers.items()],
            }
    return rows


def _layer(name: str, relevance: Tensor) -> dict[str, Any]:
    """The relevance (T, U) of a layer, with neighbouring units summed."""
    shown = strips(relevance)
    return {
        "name": name,
        "steps": len(shown),
        "units": shown.shape[1],
        "sums": rounded(relevance.sum(1)),
        **quantised(shown),
    }
