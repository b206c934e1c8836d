"""Selects the inner layers whose relevance is shown, and arranges it by time steps."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.inputs import output_at

SHOWN = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Identity,
)  # activations; sigmoids are gates, which have no relevance


def inner_layers(network: nn.Module, image: Tensor) -> list[str]:
    """The paths of activations that are called at every time step, or once for all steps, in order of their calls.

    Args:
        network: maps pictures to logits.
        image: (B, 1, H, W).
    """
    leaves = {name: module for name, module in network.named_modules() if name and isinstance(module, SHOWN)}
    outputs: dict[str, list[Any]] = {}

    def keeping(name: str) -> Any:
        return lambda module, inputs, output: outputs.setdefault(name, []).append(output)

    hooks = [module.register_forward_hook(keeping(name)) for name, module in leaves.items()]
    try:
        output_at(network, image[:2])
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name, calls in outputs.items() if _steps(calls, len(image[:2])) > 1]


def _steps(calls: Any, examples: int) -> int:
    """The number of time steps in the outputs of a layer."""
    first = calls[0]
    if not isinstance(first, Tensor):
        return 0
    if len(calls) > 1:
        return len(calls) if all(call.shape == first.shape and len(first) == examples for call in calls) else 0
    if len(first) != examples:
        return len(first) // examples if len(first) % examples == 0 else 0
    return first.shape[1] if first.dim() == 3 else 0


def over_time(layers: Mapping[str, tuple[Tensor, ...]], examples: int) -> dict[str, Tensor]:
    """The relevance of layers as (B, T, U), without layers that have none.

    Args:
        layers: by name, one tensor per call: (B, ...) at each step, or (B * T, ...) or (B, T, U) at once.
        examples: B.
    """
    result = {}
    for name, calls in layers.items():
        if len(calls) > 1:
            part = torch.stack([call.flatten(1) for call in calls], dim=1)
        elif len(calls[0]) == examples:
            part = calls[0].flatten(2)
        else:
            part = calls[0].unflatten(0, (examples, -1)).flatten(2)
        if bool((part != 0).any()):
            result[name] = part
    return result
