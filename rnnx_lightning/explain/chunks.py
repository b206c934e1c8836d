"""Explaining what does not fit into memory at once."""

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, Target, resolve_target


class InChunks(Attributor):
    """Another method, on so many examples at a time: the same relevance with the memory of one chunk.

    Args:
        method: any attributor.
        examples: at a time.

    Raises:
        ValueError: there are no examples in a chunk.
    """

    def __init__(self, method: Attributor, examples: int) -> None:
        if examples < 1:
            raise ValueError(f"examples={examples} must be at least 1")
        self.method = method
        self.examples = examples

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        if target is None:
            target = torch.cat([resolve_target(model, part, None) for part in x.split(self.examples)])
        if isinstance(target, list):
            target = torch.as_tensor(target, device=x.device)
        if isinstance(target, Tensor) and target.dim() == 1:
            targets: list[Target] = list(target.split(self.examples))
        else:
            targets = [target] * -(-len(x) // self.examples)
        parts = zip(x.split(self.examples), targets, strict=True)
        return torch.cat([self.method(model, part, chosen) for part, chosen in parts])
