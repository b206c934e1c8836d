"""Guided backprop."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rnnx_lightning.explain.attributor import Target
from rnnx_lightning.explain.backward_graph import instead_of, is_opaque, operation
from rnnx_lightning.explain.elementwise import is_zero
from rnnx_lightning.explain.gradients import GradientMethod
from rnnx_lightning.explain.inputs import Inputs, mapped
from rnnx_lightning.explain.refusals import UnexplainableError, warn

_EXTREMES = {"Maximum": 1, "Fmax": 1, "Minimum": -1, "Fmin": -1}
_FUSED_RELU = 0  # the mode of fused recurrent layers with ReLU; 1 is tanh, 2 LSTM, 3 GRU


class NoReLUWarning(UserWarning):
    """Guided backprop found no ReLU, so its relevance is that of `Sensitivity`."""


class GuidedBackprop(GradientMethod):
    """The squared guided gradient: a ReLU passes only positive gradients of active units [SDBR15].

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> model[0].weight.data = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        >>> model[2].weight.data = torch.tensor([[2.0, -1.0]])
        >>> GuidedBackprop()(model, torch.tensor([[3.0, 1.0]]))  # the second unit has a negative gradient
        tensor([[4., 4.]])

    A ReLU may be written as `relu`, `clamp(min=0)`, `nn.Threshold(0, 0)` or `maximum(x, 0)`, or with a comparison:
    `x * (x > 0)`, `where(x > 0, x, 0)` or `masked_fill(x < 0, 0)`, or as `(x + x.abs()) / 2` or
    `x * (1 + x.sign()) / 2`. ReLU6 and other ReLUs with an upper limit count, too, and -ReLU(-x), written as
    `clamp(max=0)` or `minimum(x, 0)`. A ReLU made of other functions, such as `(x.square().sqrt() + x) / 2`, is
    not recognised. If the network has no ReLU, a `NoReLUWarning` is given.

    Args:
        gates: see `GradientMethod`. The study uses "constant", because the published values of gated cells are
            only reached this way (docs/explaining.md).
        create_graph: see `GradientMethod`.

    Raises:
        UnexplainableError: there is or may be a ReLU that cannot be reached: inside compiled code, a custom
            autograd function, or a scripted `nn.RNN` that runs fused on a GPU.
    """

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        return mapped(torch.square, self._gradient(model, x, target))

    @property
    def _looks_at_graph(self) -> bool:
        return True

    def _change_backward(self, nodes: list[Any]) -> list[RemovableHandle]:
        hooks = [hook for hook in map(_guide, nodes) if hook is not None]
        if not hooks:
            warn(
                "guided backprop found no ReLU in this network: its relevance is that of Sensitivity",
                NoReLUWarning,
            )
        return hooks


def _guide(node: Any) -> RemovableHandle | None:
    """If the operation is a ReLU of any form, make it pass only positive gradients."""
    name = operation(node)
    hook: RemovableHandle
    if name == "Relu":
        hook = node.register_hook(lambda gradients, _: tuple(map(_positive, gradients)))
        return hook
    if sign := _rectifies(node, name):
        active = sign * _net_input(node) > 0  # at input 0, some forms pass the gradient or half of it
        limit = {"min" if sign > 0 else "max": 0}
        hook = node.register_prehook(
            lambda gradients: tuple(None if g is None else g.clamp(**limit) * active for g in gradients)
        )
        return hook
    if is_opaque(node):
        raise UnexplainableError(
            f"Guided backprop cannot see whether the autograd function {node.name()!r} contains a ReLU. "
            f"{instead_of(node)}"
        )
    if name in ("CudnnRnn", "MiopenRnn") and node._saved_mode == _FUSED_RELU:
        raise UnexplainableError(
            f"Guided backprop cannot reach the ReLUs inside the fused operation {node.name()!r} of nn.RNN: "
            "explain on the CPU, or write it as an nn.RNN module."
        )
    return None


def _positive(gradient: Tensor | None) -> Tensor | None:
    """The positive part of a gradient that ReLU has just computed; in place unless a graph is recorded."""
    if gradient is None or torch.is_grad_enabled():
        return None if gradient is None else gradient.clamp(min=0)
    return gradient.clamp_(min=0)


def _rectifies(node: Any, name: str) -> int:
    """1 if it is ReLU(x), perhaps with an upper limit; -1 if it is -ReLU(-x), perhaps with a lower one; else 0."""
    if name in ("Clamp", "ClampMin", "ClampMax"):
        low, high = getattr(node, "_saved_min", None), getattr(node, "_saved_max", None)
        return 1 if is_zero(low) else -1 if is_zero(high) else 0
    if name == "Hardtanh":
        return 1 if is_zero(node._saved_min_val) else -1 if is_zero(node._saved_max_val) else 0
    if name == "Threshold":
        return int(is_zero(node._saved_threshold))
    if name == "LeakyRelu":
        return int(is_zero(node._saved_negative_slope))
    sign = _EXTREMES.get(name, 0)
    return sign if sign and _zero_operand(node) is not None else 0


def _net_input(node: Any) -> Tensor:
    zero = _zero_operand(node) if operation(node) in _EXTREMES else None
    net: Tensor = node._saved_other if zero == 0 else node._saved_self
    return net


def _zero_operand(node: Any) -> int | None:
    """Which operand of a maximum or minimum is the constant 0."""
    for number, operand in enumerate((node._saved_self, node._saved_other)):
        if node.next_functions[number][0] is None and is_zero(operand):
            return number
    return None
