"""Explaining what does not fit into memory at once."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves

from rnnx_lightning.explain.attributor import Attributor, Target, resolve_target
from rnnx_lightning.explain.inputs import Inputs, batch_size, filled, tensors_of


class InChunks(Attributor):
    """Another method, on a part of the batch or of the sequence at a time: the same relevance with less memory.

    Args:
        method: any attributor.
        examples: at a time; None: all.
        steps: time steps at a time; None: all. Only for `LRP` and `DeepTaylor` without a graph. The values inside
            fused recurrent layers (`nn.LSTM`, `nn.GRU`, `nn.RNN`) are then in memory for so many steps only, and
            computed twice or three times. About the square root of the sequence's length is best. Inputs and
            outputs of the layers stay in memory.

    Further arguments of the network are passed as they are: what has one entry per example belongs to the input.

    Raises:
        ValueError: a part is empty, less than two steps, or not possible with this method.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP, Epsilon
        >>> lstm = nn.LSTM(3, 4, batch_first=True)
        >>> x = torch.randn(2, 50, 3)
        >>> def last(output):
        ...     return output[0][:, -1, 0]
        >>> whole = LRP(Epsilon(0.01))(lstm, x, last)
        >>> torch.allclose(InChunks(LRP(Epsilon(0.01)), steps=7)(lstm, x, last), whole, atol=1e-5)
        True
    """

    def __init__(self, method: Attributor, examples: int | None = None, steps: int | None = None) -> None:
        if examples is not None and examples < 1:
            raise ValueError(f"examples={examples} must be at least 1")
        if steps is not None and steps < 2:
            raise ValueError(f"steps={steps} must be at least 2")
        self.method = method if steps is None else method.in_segments(steps)
        self.examples = examples

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        if self.examples is None:
            return self.method(model, x, target)
        parts = split(x, self.examples)
        if target is None:
            target = torch.cat([resolve_target(model, part, None) for part in parts])
        if isinstance(target, list):
            target = torch.as_tensor(target, device=tensors_of(x)[0].device)
        if isinstance(target, Tensor) and target.dim() == 1:
            targets: list[Target] = list(target.split(self.examples))
        else:
            targets = [target] * len(parts)
        relevance = [self.method(model, part, chosen) for part, chosen in zip(parts, targets, strict=True)]
        return filled(x, map(torch.cat, zip(*map(tensors_of, relevance), strict=True)))


def split(x: Inputs, examples: int) -> list[Inputs]:
    """Parts of an input of any structure, so many examples each.

    Raises:
        ValueError: not all tensors have one entry per example.
    """
    tensors, size = tensors_of(x), batch_size(x)
    packed = any(
        isinstance(p, PackedSequence) for p in tree_leaves(x, is_leaf=lambda p: isinstance(p, PackedSequence))
    )
    if packed or any(len(tensor) != size for tensor in tensors):
        raise ValueError(
            "examples: every tensor of the input must have one entry per example, and no sequence may be packed"
        )
    return [filled(x, row) for row in zip(*(tensor.split(examples) for tensor in tensors), strict=True)]
