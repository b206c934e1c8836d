"""Selects the number of a network's output that is explained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._mode_utils import no_dispatch

from rnnx_lightning.explain.inputs import values_in

Target = Tensor | int | Sequence[int] | Callable[[Any], Tensor] | None
FIRST = (
    "The first dimension of x counts the examples: give a single one as x[None], and transpose inputs (T, B, ...) "
    "in a module around the model."
)
CHOOSE = "Select a value with target: an index, a tuple of indices, or a function of the output."


def logits_in(output: Any) -> Any:
    """The tensor that a target selects from: the output itself, its `logits`, or the first of several outputs."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, PackedSequence):
        return output.data
    values = values_in(output)
    return logits_in(values[0]) if values else output


def explained_value(output: Any, examples: int, target: Target) -> tuple[Tensor, Tensor | None]:
    """Select the explained value of each example.

    Args:
        output: the network's output.
        examples: number of examples.
        target: see `Attributor.__call__`.

    Returns:
        The values (B,), and the classes (B, 1) if the output has shape (B, K).

    Raises:
        ValueError: output and target do not fit together.
    """
    if callable(target):
        value = target(output)
        if not isinstance(value, Tensor) or value.shape not in ((examples,), (examples, 1)):
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the target function must return one number per example, ({examples},), got {shape}")
        return value.reshape(examples), None
    logits = logits_in(output)
    if not isinstance(logits, Tensor) or logits.dim() == 0 or len(logits) != examples:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        hint = f"{FIRST} {CHOOSE}" if isinstance(got, tuple) and got else CHOOSE
        raise ValueError(f"the model must give logits of shape ({examples}, classes), got {got}. {hint}")
    if isinstance(target, tuple):
        return _at(logits, target), None
    if logits.dim() == 1 or (logits.dim() == 2 and logits.shape[1] == 1 and target is None):
        if target is not None and bool((torch.as_tensor(target) != 0).any()):
            raise ValueError(f"target {target} is not among the outputs: the model gives one number per example")
        return logits.reshape(examples), None
    if logits.dim() != 2:
        raise ValueError(
            f"the model must give logits of shape ({examples}, classes), got {tuple(logits.shape)}. {CHOOSE}"
        )
    with no_dispatch():  # the selected class is not part of what is explained
        index = class_index(logits, target)
    return logits.gather(1, index).squeeze(1), index


def class_index(logits: Tensor, target: Tensor | int | Sequence[int] | None) -> Tensor:
    """The explained classes (B, 1).

    Raises:
        ValueError: a target is out of range.
    """
    if target is None:
        return logits.detach().argmax(dim=1, keepdim=True)
    classes = logits.shape[1]
    if isinstance(target, int) and 0 <= target < classes:  # by far the most calls: spare them the checks below
        return torch.full((len(logits), 1), target, dtype=torch.long, device=logits.device)
    try:
        index = torch.as_tensor(target, device=logits.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise no_classes(len(logits), repr(target)) from error
    if index.is_floating_point():
        raise no_classes(len(logits), f"{tuple(index.shape)} of {index.dtype}")
    if index.dim() > 1 or (index.dim() == 1 and len(index) != len(logits)):
        raise no_classes(len(logits), tuple(index.shape))
    index = index.long().expand(len(logits)).clone()  # autograd cannot save a tensor made in inference mode
    outside = (index < 0) | (index >= classes)
    if bool(outside.any()):
        wrong = int(index[outside][0])
        raise ValueError(f"target {wrong} is not among the classes 0 to {classes - 1}")
    return index.unsqueeze(1)


def no_classes(examples: int, got: object) -> ValueError:
    """The error of a target that is neither one class nor one for each example."""
    return ValueError(f"target must be one class or (B,) = ({examples},) classes, got {got}")


def _at(output: Tensor, indices: tuple[Any, ...]) -> Tensor:
    """The entry of each example at a tuple of indices; each index is a number, or one number per example."""
    if len(indices) != output.dim() - 1:
        raise ValueError(
            f"the target has {len(indices)} indices, the output {output.dim() - 1} dimensions after the first"
        )
    rows = torch.arange(len(output), device=output.device)
    for index, size in zip(indices, output.shape[1:], strict=True):
        numbers = torch.as_tensor(index)
        if bool(((numbers < -size) | (numbers >= size)).any()):
            raise ValueError(f"target {tuple(indices)} is outside of the output's shape {tuple(output.shape)}")
    return output[(rows, *(torch.as_tensor(i, device=output.device).expand(len(output)) for i in indices))]
