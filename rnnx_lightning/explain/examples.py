"""Some examples of a batch, in inputs and arguments of any structure."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from rnnx_lightning.explain.inputs import rebuilt, values_in


def cut(x: Any, start: int, stop: int, batch: int) -> Any:
    """Some examples.

    Args:
        x: a structure of tensors. Tensors (batch, ...) and states (layers, batch, H) are cut, and lists of one
            number for each example. The rest is left whole.
        start: the first example.
        stop: the one after the last.
        batch: number of examples in `x`.
    """
    if isinstance(x, PackedSequence):
        return pack_sequence(unpack_sequence(x)[start:stop], enforce_sorted=False)
    if isinstance(x, Tensor):
        dim = dimension(x, batch)
        return x if dim is None else x.narrow(dim, start, min(stop, batch) - start)
    if _of_numbers(x, batch):
        return x[start:stop]
    values = values_in(x)
    return x if values is None else rebuilt(x, [cut(value, start, stop, batch) for value in values])


def joined(parts: Sequence[Any], like: Any, batch: int) -> Any:
    """The relevance of all examples, from that of what was `cut`; of what was left whole, the sum.

    Args:
        parts: relevance of successive examples.
        like: what was cut.
        batch: number of examples in `like`.
    """
    if isinstance(like, PackedSequence):
        sequences = [sequence for part in parts for sequence in unpack_sequence(part)]
        order = range(batch) if like.sorted_indices is None else like.sorted_indices.tolist()
        return like._replace(data=pack_sequence([sequences[n] for n in order]).data)
    if isinstance(like, Tensor):
        dim = dimension(like, batch)
        return torch.stack(list(parts)).sum(0) if dim is None else torch.cat(list(parts), dim)
    values = values_in(like)
    if values is None or _of_numbers(like, batch):
        return like
    given = zip(*(values_in(part) or [] for part in parts), strict=True)
    return rebuilt(like, [joined(own, value, batch) for own, value in zip(given, values, strict=True)])


def _of_numbers(x: Any, batch: int) -> bool:
    """Whether it is a list of one number for each example."""
    return isinstance(x, tuple | list) and len(x) == batch and all(isinstance(value, int | float) for value in x)


def dimension(tensor: Tensor, batch: int) -> int | None:
    """The dimension of the examples; None if there is none."""
    if tensor.dim() and len(tensor) == batch:
        return 0
    return 1 if tensor.dim() == 3 and tensor.shape[1] == batch else None
