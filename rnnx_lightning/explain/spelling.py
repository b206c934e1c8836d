"""Replaces operations whose form hides a ReLU or a gate in the autograd graph."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode

from rnnx_lightning.explain.process_settings import without_onednn

_ABOVE = {"gt", "greater", "ge", "greater_equal", "__gt__", "__ge__"}
_BELOW = {"lt", "less", "le", "less_equal", "__lt__", "__le__"}
_COMPARISONS = _ABOVE | _BELOW
_NOT = {"logical_not", "bitwise_not", "__invert__"}
_CASTS = {"float", "double", "half", "bfloat16", "to", "type", "type_as", *_NOT}
_SIGNS = {"sign", "sgn"}
_STEPS = {"heaviside"}
_ABSOLUTE = {"abs", "absolute"}
_PRODUCTS = {"mul", "multiply", "__mul__", "__rmul__"}
_QUOTIENTS = {"div", "divide", "true_divide"}
_DIFFERENCES = {"sub", "sub_", "subtract"}
_SUMS = {"add", "add_"}
_SWAPPED = {"rsub", "__rsub__"}
_NEGATIONS = {"neg", "negative"}
_TIMES = _PRODUCTS | {"mul_", "multiply_", "__imul__"}
_FILLS = {"masked_fill", "masked_fill_", "__setitem__"}
_IN_PLACE = {"relu_", "clamp_", "clamp_min_", "clip_", "hardtanh_", "threshold_", "sigmoid_", "mul_", "multiply_"}
_ARITHMETIC = _PRODUCTS | _QUOTIENTS | _SUMS | _DIFFERENCES | _SWAPPED | _NEGATIONS  # of masks and the like
_KNOWN = _COMPARISONS | _CASTS | _SIGNS | _STEPS | _ABSOLUTE | _ARITHMETIC
_SEEN = _KNOWN | _TIMES | _FILLS | _IN_PLACE | {"where", "lstm"}  # all others run as they are


class _Pieces(NamedTuple):
    """What is known of a tensor that is made of another one, x, entry by entry.

    A step is `below` where x is below 0, and `above` where it is above; a line is x times that. Neither is known
    any longer when it, or x, is overwritten.
    """

    made: Tensor  # kept, so that its id is not used again
    version: int
    x: Tensor
    version_of_x: int
    below: float
    above: float


class PlainSpelling(TorchFunctionMode):
    """A context in which a network computes the same values, and the graph shows its ReLUs and gates.

    - A ReLU written with a comparison or a sign (`x * (x > 0)`, `where(x > 0, x, 0)`, `masked_fill(x < 0, 0)`,
      `x[x < 0] = 0`, `x * (1 + x.sign()) / 2`) is computed by `torch.relu`.
    - x + |x| is computed as 2 ReLU(x), and multiples of both are.
    - An activation or product that overwrites part of a tensor is computed separately and then copied there.
      Otherwise the graph would only show that something was written.
    - `nn.LSTM`, which runs fused on some CPUs, runs as separate operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self._steps: dict[int, _Pieces] = {}  # by id of what is a step
        self._lines: dict[int, _Pieces] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute one operation."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if (name not in _SEEN and not kwargs.get("inplace")) or (
            name in _ARITHMETIC and not self._steps and not self._lines
        ):
            return func(*args, **kwargs)
        operands = (*args, *kwargs.values())
        if any(isinstance(each, Tensor) and is_functorch_wrapped_tensor(each) for each in operands):
            return func(*args, **kwargs)  # inside vmap, values cannot be compared
        rectified = self._rectified(name, operands)
        if rectified is not None:
            if name == "__setitem__" or name.endswith("_"):
                return operands[0].copy_(rectified)
            result = func(*args, **kwargs)
            fits = result.shape == rectified.shape and result.dtype == rectified.dtype
            return rectified if fits else result
        if operands and isinstance(operands[0], Tensor) and operands[0]._is_view():
            if name in _IN_PLACE:
                beside = getattr(Tensor, name[:-1], None) or getattr(F, name[:-1])
                return operands[0].copy_(beside(operands[0].clone(), *args[1:], **_without_input(kwargs)))
            if kwargs.get("inplace"):
                return operands[0].copy_(func(operands[0].clone(), *args[1:], **{**kwargs, "inplace": False}))
        with without_onednn() if name == "lstm" else nullcontext():
            result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            self._remember(name, operands, result)
        return result

    def _remember(self, name: str, operands: tuple[Any, ...], result: Tensor) -> None:
        """Remember masks and signs, which show where a tensor is above or below 0, and absolute values."""
        if name in _COMPARISONS and len(operands) > 1:
            one, two = operands[:2]
            is_above = name in _ABOVE
            if isinstance(two, Tensor) and _is_zero(one):
                one, two, is_above = two, one, not is_above
            if isinstance(one, Tensor) and _is_zero(two):
                self._note(self._steps, result, one, float(not is_above), float(is_above))
        elif name in _SIGNS | _STEPS:
            self._note(self._steps, result, operands[0], -1.0 if name in _SIGNS else 0.0, 1.0)
        elif name in _ABSOLUTE and result.requires_grad:
            self._note(self._lines, result, operands[0], -1.0, 1.0)
        elif name in _CASTS and (step := _known(self._steps, operands[0])):
            pair = (step.below, step.above)
            below, above = (1 - each for each in pair) if name in _NOT else pair
            self._note(self._steps, result, step.x, below, above)
        elif name in _ARITHMETIC:
            self._remember_multiple(name, operands, result)

    def _remember_multiple(self, name: str, operands: tuple[Any, ...], result: Tensor) -> None:
        """Remember multiples of what is known, and steps plus a number."""
        if len(operands) != (1 if name in _NEGATIONS else 2):
            return
        tensor, number = (*operands, -1.0)[:2]
        if isinstance(number, Tensor) and name in _PRODUCTS | _SUMS:
            tensor, number = number, tensor
        if not isinstance(number, int | float) or (name in _QUOTIENTS and not number):
            return
        factor, shift = -1.0 if name in _SWAPPED else 1.0, 0.0
        if name in _PRODUCTS | _NEGATIONS | _QUOTIENTS:
            factor = 1 / number if name in _QUOTIENTS else number
        else:
            shift = -number if name in _DIFFERENCES else number
        for table in (self._steps, self._lines):
            if (known := _known(table, tensor)) and (table is self._steps or not shift):
                below, above = (factor * each + shift for each in (known.below, known.above))
                self._note(table, result, known.x, below, above)

    @staticmethod
    def _note(table: dict[int, _Pieces], made: Tensor, x: Tensor, below: float, above: float) -> None:
        if not made.is_inference() and not x.is_inference():  # these have no versions
            table[id(made)] = _Pieces(made, made._version, x.detach(), x._version, below, above)

    def _rectified(self, name: str, operands: tuple[Any, ...]) -> Tensor | None:
        """What the operation computes, if that is a multiple of ReLU(x) or ReLU(-x); else None."""
        if name in _SUMS | _DIFFERENCES:
            return self._beside_line(operands, -1.0 if name in _DIFFERENCES else 1.0)
        candidates: list[tuple[Any, Any, bool]] = []  # a tensor, a mask, and whether it is kept where this is True
        if name in _TIMES and len(operands) > 1:
            candidates = [(operands[0], operands[1], True)]
            if not name.endswith("_") or name.startswith("__r"):
                candidates.append((operands[1], operands[0], True))
        elif name == "where" and len(operands) == 3:
            mask, one, two = operands
            if id(mask) not in self._steps:  # the form `one.where(mask, two)`
                mask, one = one, mask
            candidates = [(one, mask, True)] if _is_zero(two) else []
            if _is_zero(one):
                candidates.append((two, mask, False))
        elif name in _FILLS and len(operands) == 3:
            candidates = [(operands[0], operands[1], False)] if _is_zero(operands[2]) else []
        for tensor, mask, kept in candidates:
            step = _known(self._steps, mask)
            if step is not None and isinstance(tensor, Tensor) and _equal(step.x, tensor):
                below, above = (step.below, step.above) if kept else (1 - step.below, 1 - step.above)
                return _piecewise(tensor, below, above)
        return None

    def _beside_line(self, operands: tuple[Any, ...], sign: float) -> Tensor | None:
        """The sum or difference of a multiple of x and a line, such as x + |x|, where both cancel on one side."""
        if len(operands) != 2 or not all(isinstance(each, Tensor) and each.requires_grad for each in operands):
            return None
        first, second = operands
        for tensor, other, own, of_line in ((first, second, 1.0, sign), (second, first, sign, 1.0)):
            line = _known(self._lines, other)
            if line is None:
                continue
            below, above = line.below * of_line, line.above * of_line
            for slope in (-below, -above):
                if slope and _equal(line.x if slope == own else line.x * (slope * own), tensor):
                    x = tensor if slope == own else tensor / (slope * own)
                    return _piecewise(x, below + slope, above + slope)
        return None


def _known(table: dict[int, _Pieces], tensor: Any) -> _Pieces | None:
    """What is known of a tensor, unless something was overwritten."""
    known = table.get(id(tensor))
    if known is None or known.made._version != known.version or known.x._version != known.version_of_x:
        return None
    return known


def _piecewise(x: Tensor, below: float, above: float) -> Tensor | None:
    """Multiply x by `below` where it is negative, by `above` where it is positive, if one is 0; else None."""
    if below and above:
        return None
    rectified, factor = (torch.relu(-x), -below) if below else (torch.relu(x), above)
    return rectified if factor == 1 else rectified * factor


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and value.numel() > 0 and not bool(value.any())
    return isinstance(value, int | float) and value == 0


def _equal(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors have the same values."""
    if one.shape != two.shape or one.dtype != two.dtype or one.device != two.device:
        return False
    return (one.data_ptr() == two.data_ptr() and one.stride() == two.stride()) or torch.equal(one, two)


def _without_input(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in ("input", "self")}
