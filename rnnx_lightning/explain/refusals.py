"""Errors and warnings of explanations."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

# The folders of this package and of installed ones, such as torch: no line in them is the user's.
_PACKAGES = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(torch.__file__).parents[1]))
AS_WEIGHTS = (
    "It can weight signals (attention), but has no rule as a signal. Explain the logits: remove the softmax from "
    'the network. Or use the rule of [Achtibat et al., 2024]: Composite(..., softmax="signal").'
)


class UnexplainableError(Exception):
    """The network uses an operation without a rule. The message names it, its place, and what to do."""


class FusedLayerError(UnexplainableError):
    """`nn.LSTM` runs as one operation of oneDNN."""


class NothingToExplainWarning(UserWarning):
    """Some examples have no relevance, because the explained output is not positive (or is 0)."""


class NotFiniteWarning(UserWarning):
    """The input, the explained output or the relevance has entries that are NaN or infinite."""


class TrainingModeWarning(UserWarning):
    """The network is in train mode, in which it differs from the one that decides."""


class PixelRangeWarning(UserWarning):
    """Some pixels lie outside the bounds of a rule."""


class NumPyWarning(UserWarning):
    """The network computes with values in NumPy or as lists of numbers, where their relevance is lost."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line of the user's code, however many calls of ours, torch's or Lightning's lie between."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGES):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def name_of(func: Any) -> str:
    """The name of an operation, as in torch."""
    name: str = func._schema.name.partition("::")[2].strip("_") if hasattr(func, "_schema") else func.__name__
    return name


IN_INFERENCE_MODE = (
    "The network runs under torch.inference_mode{}, where layers are not broken down into basic operations. "
    "Use torch.no_grad there."
)

HIGHER_ORDER = (
    "The network calls a function of torch that runs a part of it as a whole ({}){}, where single operations "
    "cannot be seen. Write it out: a Python loop for while_loop, scan and map, an if for cond, and "
    "F.scaled_dot_product_attention for flex_attention."
)

FROM_PYTHON = "Explain the Python module, not its TorchScript form."

EXTENSIONS = (
    "Extensions (in C++, CUDA, Triton or NumPy) cannot be recorded: run their form in torch operations, which "
    "some choose under torch.enable_grad."
)

SHARED = (
    "The network reads a tensor{} that lies in the memory of values that depend on the input, but was not made of "
    "them by an operation of torch, as by `set_` or by another package. Use the values themselves."
)

NO_GRADIENT = (
    "The model's output has no gradient by its input: it is computed under torch.no_grad or torch.inference_mode, "
    "detached, made only of comparisons or whole numbers, or by an operation that torch cannot differentiate. "
    "Compute it with gradients, or explain by LRP."
)
