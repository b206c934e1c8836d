"""Gates as constants: no gradient flows through a sigmoid whose output scales a signal."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from rnnx_lightning.explain.backward_graph import HOOKS, instead_of, is_opaque, operation
from rnnx_lightning.explain.refusals import FusedLayerError, UnexplainableError

Gates = Literal["free", "constant"]
Gradients = tuple[Tensor | None, ...]
Backward = Callable[[Gradients, Any], Gradients]  # changes the gradients with respect to an operation's inputs


class _Made(IntEnum):
    """What a tensor is computed from."""

    CONSTANTS = 0  # independent of the explained input
    GATES = 1  # only gates: products of them, and functions such as `1 - gate` or its root
    SCALED_GATES = 2  # the same, scaled by a constant tensor, such as a given state or a bias
    SIGNALS = 3
    GATES_AND_SIGNALS = 4  # both, in different entries of one tensor


_SIGMOIDS = {"Sigmoid", "Hardsigmoid", "LogSigmoid"}
_SUMS = {"Add", "Sub", "Rsub"}
_MATRIX_PRODUCTS = {"Bmm", "Mm", "Mv", "Dot", "Vdot"}
_PRODUCTS = {"Mul", "Div", "Lerp", *_MATRIX_PRODUCTS}
_ADDED_PRODUCTS = {  # summand + one * two, and the product that is added
    **{"Addcmul": "Mul", "Addcdiv": "Div", "Addr": "Mul", "Addmv": "Mv"},
    **{"Addmm": "Mm", "Addbmm": "Bmm", "Baddbmm": "Bmm"},
}
_JOINS = {"Cat", "Stack", "CopySlices", "IndexPut", "IndexCopy", "Scatter", "SliceScatter", "SelectScatter", HOOKS}
_MOVES = {  # operations that move entries, or treat all of them in the same way
    *("Neg", "Sum", "Mean", "Clone", "Copy", "ToCopy", "Alias", "AsStrided"),
    *("View", "UnsafeView", "ReshapeAlias", "Reshape", "Squeeze", "Unsqueeze", "T", "Transpose", "Permute"),
    *("Slice", "Select", "Split", "SplitWithSizes", "UnsafeSplit", "UnsafeSplitWithSizes", "Unbind"),
    *("Index", "IndexSelect", "Gather", "Expand", "Repeat", "Flip", "Roll", "Unfold", "Diagonal", "DiagEmbed"),
    *("Cumsum", "ConstantPadNd", "Tril", "Triu", "AvgPool2D", "AdaptiveAvgPool2D", "UpsampleNearest1D"),
    *("UpsampleNearest2D", "UpsampleLinear1D", "UpsampleBilinear2D"),
}
_FUNCTIONS = {  # of gates only: they are gates, too
    *("Pow", "Reciprocal", "Sqrt", "Rsqrt", "Exp", "Exp2", "Expm1", "Log", "Log1p", "Log2", "Log10", "Sin", "Cos"),
    *("Tanh", "Abs", "Relu", "Hardtanh", "Silu", "Softplus", "LogSigmoid", "Clamp", "ClampMin", "ClampMax"),
    *("Maximum", "Minimum", "Where", "MaskedFill", "Max", "Min", "Amax", "Amin", "Sort", "Topk", "Cumprod"),
    *("Prod", "Softmax", "SafeSoftmax", "LogSoftmax", "Logsumexp", "Logcumsumexp", "LinalgVectorNorm", "Var"),
    "Std",
}
_FUSED = {"CudnnRnn", "MiopenRnn", "ThnnFusedLstmCell", "ThnnFusedGruCell"}
_FUSED_LSTM = 2  # the mode of a fused recurrent layer: ReLU, tanh, LSTM, GRU


def hold_gates_constant(nodes: list[Any], leaves: Sequence[Tensor]) -> list[RemovableHandle]:
    """Make the backward pass to the explained inputs treat gates as constants.

    A gate is the output of a sigmoid or log-sigmoid, or anything computed from gates only, that scales a signal:
    in `gate * signal`, `torch.lerp`, a matrix product or GLU. It may also scale a constant tensor, as a forget
    gate does with a given state; it counts as a gate if the product is added to a signal. A sigmoid used as the
    activation of a layer keeps its gradient.

    Args:
        nodes: the `operations` of the explained value.
        leaves: the explained inputs, leaves of their graph.

    Returns:
        The hooks, to be removed after the backward pass.

    Raises:
        UnexplainableError: there is or may be a gate that cannot be reached: inside a fused operation, compiled
            code or a custom autograd function, or in one tensor with signals.
    """
    made: dict[int, _Made] = {id(None): _Made.CONSTANTS}
    explained = set(map(id, leaves))
    hooks: list[RemovableHandle] = []
    for node in nodes:
        inputs = [made[id(before)] for before, _ in node.next_functions]
        if id(getattr(node, "variable", None)) in explained:
            made[id(node)] = _Made.SIGNALS
        elif max(inputs, default=_Made.CONSTANTS) is _Made.CONSTANTS:
            made[id(node)] = _Made.CONSTANTS
        else:
            _check_visible(node)
            made[id(node)] = _classify(node, inputs)
            if backward := _backward_without_gates(node, inputs):
                hooks.append(node.register_hook(backward))
    return hooks


def _classify(node: Any, inputs: list[_Made]) -> _Made:
    """What the output of an operation is computed from."""
    name, all_made = operation(node), max(inputs)
    if name in _SIGMOIDS:
        return _Made.GATES
    if name in _JOINS and all_made is _Made.SIGNALS and _gates(inputs):
        return _Made.GATES_AND_SIGNALS
    if name in _MOVES | _JOINS or (name in _FUNCTIONS and _is_gate(all_made)):
        return all_made
    if _is_sum(name, inputs):
        return min(all_made, _Made.SIGNALS)
    if name in _PRODUCTS:
        return _of_product(name, inputs, _by_tensor(node, inputs))
    if name in _ADDED_PRODUCTS:
        return min(max(inputs[0], _added(name, inputs)), _Made.SIGNALS)
    return _Made.SIGNALS


def _of_product(name: str, factors: Sequence[_Made], by_tensor: bool) -> _Made:
    """What a product is computed from; `by_tensor`: gates are multiplied by constants that differ."""
    made = max(factors)
    if made is _Made.CONSTANTS:
        return made
    if name in _MATRIX_PRODUCTS and _Made.CONSTANTS in factors:  # a linear layer that reads gates
        return _Made.SIGNALS
    return made if made is _Made.GATES and not by_tensor else max(made, _Made.SCALED_GATES)


def _added(name: str, inputs: Sequence[_Made]) -> _Made:
    """What the product in summand + one * two is computed from."""
    return _of_product(_ADDED_PRODUCTS[name], inputs[1:], _Made.CONSTANTS in inputs[1:])


def _backward_without_gates(node: Any, inputs: list[_Made]) -> Backward | None:
    """A hook that stops the gradient at gates that scale a signal in this operation; None if there are none."""
    name = operation(node)
    if name == "Glu":
        return _without_second_half(node._saved_dim)
    gates: list[int] = []
    if _is_sum(name, inputs):
        scaled = [i for i, made in enumerate(inputs) if made is _Made.SCALED_GATES]
        gates = scaled if max(inputs) >= _Made.SIGNALS else []
    elif name in _PRODUCTS:
        gates = _gates_of_signals(node, name, inputs)
    elif name in _ADDED_PRODUCTS:
        gates = _gates_of_added(node, name, inputs)
    if not gates:
        return None
    return lambda gradients, _: tuple(None if i in gates else g for i, g in enumerate(gradients))


def _gates_of_signals(node: Any, name: str, inputs: list[_Made]) -> list[int]:
    """Which inputs of a product are gates that scale a signal.

    Raises:
        UnexplainableError: gates and signals share a tensor.
    """
    signals = [made >= _Made.SIGNALS for made in inputs]
    if _Made.GATES_AND_SIGNALS in inputs and sum(made > _Made.CONSTANTS for made in inputs) > 1:
        raise UnexplainableError(
            f"gates='constant' cannot separate gates from signals in a tensor that holds both and is a factor in "
            f"{node.name()!r}. Keep them in separate tensors."
        )
    if name == "Lerp":  # one + gate * (two - one)
        return [2] if _is_gate(inputs[2]) and any(signals[:2]) else []
    gates = [i for i in _gates(inputs) if i == 1 or name != "Div"]
    return gates if any(signals) else []


def _gates_of_added(node: Any, name: str, inputs: list[_Made]) -> list[int]:
    """Which inputs of summand + one * two are gates that scale a signal, or a constant that is added to one."""
    gates = {1 + i for i in _gates_of_signals(node, _ADDED_PRODUCTS[name], inputs[1:])}
    product = _added(name, inputs)
    if max(inputs[0], product) >= _Made.SIGNALS:
        gates |= {0} if inputs[0] is _Made.SCALED_GATES else set()
        gates |= {1 + i for i in _gates(inputs[1:])} if product is _Made.SCALED_GATES else set()
    return sorted(gates)


def _is_sum(name: str, inputs: list[_Made]) -> bool:
    """Whether it is a sum; this includes `torch.lerp` with a number as weight."""
    return name in _SUMS or (name == "Lerp" and len(inputs) == 2)


def _is_gate(made: _Made) -> bool:
    return made in (_Made.GATES, _Made.SCALED_GATES)


def _gates(inputs: list[_Made]) -> list[int]:
    return [i for i, made in enumerate(inputs) if _is_gate(made)]


def _by_tensor(node: Any, inputs: list[_Made]) -> bool:
    """Whether gates are multiplied, entry by entry, by constants that differ."""
    if _Made.CONSTANTS not in inputs or operation(node) in _MATRIX_PRODUCTS:
        return False
    if len(inputs) > 2:
        return True
    constant = node._saved_self if inputs[0] is _Made.CONSTANTS else node._saved_other
    return constant is not None and constant.dim() > 0


def _without_second_half(dim: int) -> Backward:
    dim = dim - 2**64 if dim >= 2**63 else dim  # torch saves negative dimensions as unsigned

    def backward(gradients: Gradients, _: Any) -> Gradients:
        (gradient,) = gradients
        if gradient is None:
            return gradients
        first, second = gradient.chunk(2, dim)
        return (torch.cat([first, torch.zeros_like(second)], dim),)

    return backward


def _check_visible(node: Any) -> None:
    name = operation(node)
    if name == "MkldnnRnnLayer":
        raise FusedLayerError("nn.LSTM runs as one operation of oneDNN.")
    if is_opaque(node):
        raise UnexplainableError(
            f"gates='constant' cannot see whether the autograd function {node.name()!r} contains a gate. "
            f"{instead_of(node)}"
        )
    if name in _FUSED and getattr(node, "_saved_mode", _FUSED_LSTM) >= _FUSED_LSTM:
        raise UnexplainableError(
            f"gates='constant' cannot reach the gates inside the fused operation {node.name()!r}: "
            "explain on the CPU."
        )
