"""What the page knows: relevance by several networks and methods, small enough to be embedded."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rnnx_lightning.explain import LRP, Attributor
from rnnx_lightning.metrics.functional import majority_cosine_similarity, sample_relevance
from rnnx_lightning.view.layers import inner_layers, over_time

STRIP = 32  # units of a layer at one step are summed into at most so many neighbouring groups
DIGITS = 7  # significant ones of numbers that are not quantised


class Named(NamedTuple):
    """A network, and how it is called on the page."""

    name: str
    network: nn.Module


def quantised(values: Tensor) -> dict[str, Any]:
    """Numbers as int8 in base64: value = scale * integer, off by at most scale / 2 = greatest magnitude / 254."""
    scale = max(float(values.abs().amax()) / 127, 1e-38)
    integers = (values.double() / scale).round().clamp(-127, 127).to(torch.int8).cpu()
    return {"scale": scale, "values": base64.b64encode(integers.contiguous().numpy().tobytes()).decode()}


def rounded(values: Tensor) -> list[float]:
    """As plain numbers with few digits."""
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def strips(relevance: Tensor) -> Tensor:
    """(T, U) relevance of units to (T, at most 32): sums of neighbours, so that rows keep their sums."""
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
    """Explain by all, and put it into what becomes JSON.

    Args:
        networks: in eval mode; they read pictures (B, 1, H, W).
        methods: by name. Of those that propagate relevance (`LRP`), that of inner layers is kept, too.
        image: (B, 1, H, S * W) in [-1, 1].
        label: (B,) true classes, which are explained.
        majority: (B, S) bool.
        class_names: by label.
        numbers: of the sequences, to show.

    Returns:
        Plain lists, dicts, numbers and strings; `results[network][sequence]` has what was explained.
    """
    samples = majority.shape[1]
    grey = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
    results = []
    for _, network in networks:
        with torch.no_grad():
            logits = network(image)
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
            per_sample = sample_relevance(relevance, samples)
            cosine = majority_cosine_similarity(relevance, majority)
            for number, row in enumerate(rows):
                row["methods"][name] = {
                    **quantised(relevance[number]),
                    "per_sample": rounded(per_sample[number]),
                    "cosine": rounded(cosine[number][None])[0],
                    "layers": [
                        {
                            "name": layer,
                            "steps": part.shape[1],
                            "units": strips(part[number]).shape[1],
                            "sums": rounded(part[number].sum(1)),
                            **quantised(strips(part[number])),
                        }
                        for layer, part in layers.items()
                    ],
                }
        results.append(rows)
    return {
        "height": image.shape[2],
        "width": image.shape[3],
        "samples": samples,
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
        "results": results,
    }
