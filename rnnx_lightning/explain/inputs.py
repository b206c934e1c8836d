"""Inputs of any structure: a tensor, several in a tuple, a list or a dict, a packed sequence."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

Inputs = Any  # a tensor, a PackedSequence, or a tuple, a list or a dict of what a network takes


def tensors_of(x: Inputs) -> list[Tensor]:
    """The tensors that are explained, in order."""
    if isinstance(x, PackedSequence):
        return [x.data]
    if isinstance(x, Tensor):
        return [x]
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def mapped(function: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """The same structure with a function of each tensor."""
    tensors = iter([function(tensor) for tensor in tensors_of(x)])
    return filled(x, tensors)


def filled(x: Inputs, tensors: Any) -> Inputs:
    """The same structure with other tensors, in order."""
    tensors = iter(tensors)

    def fill(part: Inputs) -> Inputs:
        if isinstance(part, PackedSequence):
            return PackedSequence(next(tensors), part.batch_sizes, part.sorted_indices, part.unsorted_indices)
        if isinstance(part, Tensor):
            return next(tensors)
        if isinstance(part, dict):
            return {key: fill(value) for key, value in part.items()}
        if isinstance(part, tuple | list):
            return type(part)(fill(value) for value in part)
        return part

    return fill(x)


def batch_size(x: Inputs) -> int:
    """How many examples there are.

    Raises:
        ValueError: there is nothing that can be explained, or what there is has no dimension of examples.
    """
    if isinstance(x, PackedSequence):
        return int(x.batch_sizes[0])
    tensors = tensors_of(x)
    if not tensors:
        raise ValueError(f"x must be a tensor (B, ...), or a tuple or dict of tensors, got {type(x).__name__}")
    for tensor in tensors:
        if (
            tensor.is_complex()
            or tensor.dtype == torch.bool
            or tensor.dim() < (1 if not tensor.is_floating_point() else 2)
        ):
            raise ValueError(
                f"x must be a floating-point tensor (B, ...) or int64 tokens (B, T), got {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}"
            )
    return len(tensors[0])


def call(model: Callable[..., Any], x: Inputs, arguments: dict[str, Any]) -> Any:
    """The network's output: a tuple or a list is several arguments, a dict named ones."""
    if isinstance(x, dict):
        return model(**x, **arguments)
    if isinstance(x, tuple | list) and not isinstance(x, PackedSequence):
        return model(*x, **arguments)
    return model(x, **arguments)


class Bound(nn.Module):
    """A network with the arguments that are not explained filled in: one argument, whatever the network takes.

    Args:
        model: the network.
        arguments: by keyword.
    """

    def __init__(self, model: nn.Module, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__["model"] = model  # not a child: the network is not changed, and its layers keep their names
        self.arguments = arguments

    def forward(self, x: Inputs) -> Any:
        """The network's output."""
        return call(self.__dict__["model"], x, self.arguments)


def network_of(model: nn.Module) -> nn.Module:
    """The network itself."""
    return model.__dict__["model"] if isinstance(model, Bound) else model
