"""Inputs of any structure: a tensor, a packed sequence, or a tuple, list, dict or dataclass of them."""

from collections import UserDict
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

Inputs = Any  # a tensor, a PackedSequence, or a tuple, list or dict of a network's arguments


def values_in(x: Any) -> list[Any] | None:
    """What a container holds, in order; None: it is no container."""
    if isinstance(x, PackedSequence):
        return None
    if isinstance(x, Mapping):
        return list(x.values())
    if isinstance(x, tuple | list):
        return list(x)
    return [getattr(x, name) for name in _fields(x)] if _fields(x) else None


def rebuilt(like: Any, values: list[Any]) -> Any:
    """A container of the same type with other values; a mapping of an unknown type becomes a dict."""
    if isinstance(like, dict | UserDict):
        new = copy(like)
        for key, value in zip(like, values, strict=True):
            if isinstance(key, str) and getattr(like, key, new) is like[key]:  # its fields are attributes, too
                setattr(new, key, value)
            new[key] = value
        return new
    if isinstance(like, Mapping):
        return dict(zip(like, values, strict=True))
    if isinstance(like, tuple | list):
        return type(like)(*values) if hasattr(like, "_fields") else type(like)(values)
    new = copy(like)
    for name, value in zip(_fields(like), values, strict=True):
        object.__setattr__(new, name, value)  # it may be frozen
    return new


def _fields(x: Any) -> list[str]:
    """The names of a dataclass's fields; none if it is something else."""
    return [field.name for field in fields(x)] if is_dataclass(x) and not isinstance(x, type | nn.Module) else []


def leaves_of(x: Inputs) -> list[Tensor | PackedSequence]:
    """The explained tensors and packed sequences, in order."""
    if isinstance(x, Tensor | PackedSequence):
        return [x]
    return [leaf for part in values_in(x) or () for leaf in leaves_of(part)]


def tensors_of(x: Inputs) -> list[Tensor]:
    """The explained tensors, in order."""
    return [leaf.data if isinstance(leaf, PackedSequence) else leaf for leaf in leaves_of(x)]


def mapped(function: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """The same structure with a function applied to each tensor."""
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
        values = values_in(part)
        return part if values is None else rebuilt(part, [fill(value) for value in values])

    return fill(x)


def has_tokens(x: Inputs) -> bool:
    """Whether an input has whole numbers, which have no gradient."""
    return not all(tensor.is_floating_point() for tensor in tensors_of(x))


def holds_pixels(tensor: Tensor) -> bool:
    """Whether an input is of pixels or other numbers; whole numbers of other types than uint8 are tokens."""
    return tensor.is_floating_point() or tensor.dtype == torch.uint8


def copied(x: Inputs) -> Inputs:
    """The same structure with copies of the tensors, without their graphs; subclasses become plain tensors."""
    return mapped(lambda tensor: _plain(tensor.detach().clone()), x)


def without_graph(x: Inputs) -> Inputs:
    """The same structure with plain tensors that share the memory of `x` where torch can record graphs for it."""
    return mapped(lambda part: _plain(part.detach().clone() if part.is_inference() else part.detach()), x)


def _plain(tensor: Tensor) -> Tensor:
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def output_at(model: Callable[..., Any], x: Inputs) -> Any:
    """The output without a graph. The network gets a copy of `x`, which it may overwrite."""
    with torch.no_grad():
        return model(mapped(torch.clone, x))


def batch_size(x: Inputs) -> int:
    """Number of examples.

    Raises:
        ValueError: there is no tensor, or a tensor cannot be explained or has no batch dimension.
    """
    leaves = leaves_of(x)
    if not leaves:
        raise ValueError(f"x must be a tensor (B, ...), or a tuple or dict of tensors, got {type(x).__name__}")
    for tensor in leaves:
        if isinstance(tensor, PackedSequence):
            continue
        if (
            tensor.is_complex()
            or tensor.dtype == torch.bool
            or tensor.dim() < (1 if not tensor.is_floating_point() else 2)
        ):
            raise ValueError(
                f"x must be a floating-point tensor (B, ...) or int64 tokens (B, T), got {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}"
            )
        if tensor.is_meta:
            raise ValueError("x is on the device 'meta', where tensors have no values to explain")
    first = leaves[0]
    return int(first.batch_sizes[0]) if isinstance(first, PackedSequence) else len(first)


def call(model: Callable[..., Any], x: Inputs, arguments: dict[str, Any]) -> Any:
    """The network's output. A tuple or list holds positional arguments, a dict keyword arguments."""
    if isinstance(x, Mapping):
        return model(**x, **arguments)
    if isinstance(x, tuple | list) and not isinstance(x, PackedSequence):
        return model(*x, **arguments)
    return model(x, **arguments)


class Bound(nn.Module):
    """A network with the unexplained arguments filled in, so that it takes one argument.

    Args:
        model: the network.
        arguments: unexplained keyword arguments.
    """

    def __init__(self, model: nn.Module, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__["model"] = model  # not a submodule, so that layers keep their names
        self.arguments = arguments

    def forward(self, x: Inputs) -> Any:
        """The network's output."""
        return call(self.__dict__["model"], x, self.arguments)


def network_of(model: nn.Module) -> nn.Module:
    """The network without `Bound`."""
    return model.__dict__["model"] if isinstance(model, Bound) else model
