"""The base class of all explanation methods: `relevance = Method(...)(model, x, target)`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rnnx_lightning.explain.finite import warn_if_not_finite
from rnnx_lightning.explain.inputs import (
    Bound,
    Inputs,
    batch_size,
    copied,
    has_tokens,
    network_of,
    output_at,
    tensors_of,
)
from rnnx_lightning.explain.isolation import isolated, kept_state
from rnnx_lightning.explain.lookups import WithVectors
from rnnx_lightning.explain.outputs import Target as Target
from rnnx_lightning.explain.outputs import explained_value
from rnnx_lightning.explain.process_settings import without_onednn
from rnnx_lightning.explain.refusals import FusedLayerError, TrainingModeWarning, warn

T = TypeVar("T")


class Attributor(ABC):
    """Computes how relevant each entry of an input is for a logit.

    The model is any `nn.Module`. It is explained in the mode it is in, so call `model.eval()` first. The call does
    not change it: weights, gradients, buffers, flags, hooks and any state it keeps are restored, and so is the
    random state.
    """

    needs_gradient = False  # of the input: then the vectors of tokens are explained in their place
    warns_of_nan = False  # in its `_relevance`, or the methods that it calls do

    def __call__(self, model: nn.Module, x: Inputs, target: Target = None, **arguments: Any) -> Inputs:
        """Compute the relevance of `x` for one output of each example.

        Args:
            model: the network.
            x: (B, ...) floating-point input or uint8 pixels, int64 tokens (B, T), or a packed sequence. A tuple,
                list or dict of these is passed to the model as its arguments. Containers in it (dataclasses, too)
                keep their types.
            target: the output to explain. For an output (B, K): (B,) int64 classes, one class for all examples, or
                None for the largest logit. For (B, ...): a tuple of indices. For (B,) and (B, 1): None. For any
                output: a function from the output to (B,) numbers.
            arguments: further keyword arguments of the model, which are not explained.

        Returns:
            Relevance with the structure, shapes, dtype and device of `x`; for whole numbers (tokens, uint8
            pixels), one floating-point number for each.

        Raises:
            ValueError: input, target and the model's output do not fit together, or the model is no module.
            UnexplainableError: the network uses an operation that this method has no rule for.

        Warns:
            NotFiniteWarning: relevance is NaN or infinite; on a GPU, only LRP looks for that.
            TrainingModeWarning: the model is in train mode, and this changes its output.
            NumPyWarning: LRP; the model computes with NumPy or lists of numbers, where relevance is lost.
        """
        check_model(network_of(model))
        batch_size(x)
        takes_x = isinstance(x, Tensor) or isinstance(model, Bound)  # a method that another one calls has it bound
        bound = model if takes_x and not arguments else Bound(model, arguments)
        return unfused(lambda: self._isolated(bound, x, target))

    def _isolated(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        with isolated(network_of(model), tensors_of(x)[0].device):
            x = self._taken(x)
            if self.needs_gradient and has_tokens(x):
                vectors = self._with_vectors(model, x)
                relevance = vectors.of_tokens(self._relevance(vectors, vectors.inputs, target))
            else:
                relevance = self._relevance(model, x, target)
                self._check_shape(relevance, x)
            if not (self.warns_of_nan or tensors_of(x)[0].is_cuda):  # a GPU would have to be waited for
                warn_if_not_finite(x, relevance)
            return relevance

    def _check_shape(self, relevance: Any, x: Inputs) -> None:
        """Refuse what the `_relevance` of a subclass should not return."""
        if isinstance(x, Tensor) and not (isinstance(relevance, Tensor) and relevance.shape == x.shape):
            got = tuple(relevance.shape) if isinstance(relevance, Tensor) else type(relevance).__name__
            raise ValueError(
                f"{type(self).__name__}._relevance must return a tensor of the shape of x, {tuple(x.shape)}, got "
                f"{got}"
            )

    def _with_vectors(self, model: nn.Module, x: Inputs) -> WithVectors:
        """A network of tokens, as one of vectors."""
        return WithVectors(model, x)

    def _taken(self, x: Inputs) -> Inputs:
        """`x` as `_relevance` gets it: a copy, so that the network may overwrite it."""
        return copied(x)

    def fitted(self, x: Inputs) -> "Attributor":
        """A copy that explains parts of `x` as it explains the whole, see `InChunks`."""
        return self

    def in_segments(self, steps: int) -> "Attributor":
        """A copy that needs less memory for long sequences, see `InChunks`.

        Raises:
            ValueError: the method cannot do that.
        """
        raise ValueError(f"steps: {type(self).__name__} cannot explain some time steps at a time; LRP can")

    @abstractmethod
    def _relevance(self, model: nn.Module, x: Any, target: Any) -> Any:
        """The method itself. `x` is what `_taken` gives; `model(x)` runs the network, which may overwrite it."""


def unfused(explain: Callable[[], T]) -> T:
    """Explain; if `nn.LSTM` runs as one operation, out of sight of Python, explain again without that."""
    try:
        return explain()
    except FusedLayerError:
        with without_onednn():
            return explain()


def check_model(model: nn.Module) -> None:
    """Refuse what is no network, and warn of one in train mode.

    Raises:
        ValueError: it is not a module.
    """
    if not isinstance(model, nn.Module):
        hint = "create it first" if isinstance(model, type) else "call it in the forward of a module"
        raise ValueError(f"model must be a torch.nn.Module, got {str(model)[:80]}: {hint}")
    if noisy := sorted({type(m).__name__ for m in model.modules() if trains(m) and _differs_in_training(m)}):
        warn(
            f"The model is in train mode, so what is explained depends on {' and '.join(noisy)}: a random draw, "
            "or the other examples. Call model.eval() first.",
            TrainingModeWarning,
        )


def trains(module: nn.Module) -> bool:
    """Whether a module is in train mode; frozen TorchScript has no modes."""
    return getattr(module, "training", False)


def _differs_in_training(module: nn.Module) -> bool:
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    drops = "Dropout" in type(module).__name__ and getattr(module, "p", 1) > 0
    return drops or isinstance(module, _BatchNorm)


def explained_logit(logits: Any, x: Inputs, target: Target) -> tuple[Tensor, Tensor]:
    """Select the explained logit of each example.

    Args:
        logits: the model's output.
        x: its input.
        target: see `Attributor.__call__`.

    Returns:
        The values of the logits (B,), with their autograd graph, and the targets (B, 1).

    Raises:
        ValueError: the logits are not of shape (B, K), or a target is out of range.
    """
    value, index = explained_value(logits, batch_size(x), target)
    return value, torch.zeros(len(value), 1, dtype=torch.long, device=value.device) if index is None else index


def resolve_target(model: nn.Module, x: Inputs, target: Target) -> Any:
    """The target for `x`, for methods that also evaluate the model at other inputs."""
    if target is not None:
        return target
    with kept_state(network_of(model)):
        _, index = explained_value(output_at(model, x), batch_size(x), None)
    return None if index is None else index.squeeze(1)


def as_tuple(names: Sequence[str] | str) -> tuple[str, ...]:
    """Layer names as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)
