"""Replaces operations whose form hides a ReLU or a gate in the autograd graph."""

from contextlib import nullcontext
from typing import Any

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
_PRODUCTS = {"mul", "multiply", "__mul__", "__rmul__"}
_TIMES = _PRODUCTS | {"mul_", "multiply_", "__imul__"}
_ABSOLUTE = {"abs", "absolute"}
_SUMS = {"add", "add_"}
_FILLS = {"masked_fill", "masked_fill_", "__setitem__"}
_IN_PLACE = {"relu_", "clamp_", "clamp_min_", "clip_", "hardtanh_", "threshold_", "sigmoid_", "mul_", "multiply_"}
_SEEN = (
    _COMPARISONS | _CASTS | _TIMES | _FILLS | _IN_PLACE | _ABSOLUTE | _SUMS | {"where", "lstm"}
)  # all others run as they are


class PlainSpelling(TorchFunctionMode):
    """A context in which a network computes the same values, and the graph shows its ReLUs and gates.

    - A ReLU written with a comparison (`x * (x > 0)`, `where(x > 0, x, 0)`, `masked_fill(x < 0, 0)`,
      `x[x < 0] = 0`) is computed by `torch.relu`.
    - x + |x| is computed as 2 ReLU(x).
    - An activation or product that overwrites part of a tensor is computed separately and then copied there.
      Otherwise the graph would only show that something was written.
    - `nn.LSTM`, which runs fused on some CPUs, runs as separate operations.
    """

    def __init__(self) -> None:
        super().__init__()
        # By id of a mask: the mask (kept, so that its id is not reused), the compared tensor, its version, and
        # whether the mask is True above 0.
        self._masks: dict[int, tuple[Tensor, Tensor, int, bool]] = {}
        # By id of an absolute value: itself, its version, the tensor it is that of, and the version of this.
        self._absolutes: dict[int, tuple[Tensor, int, Tensor, int]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute one operation."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if (
            (name not in _SEEN and not kwargs.get("inplace"))
            or (name in _PRODUCTS and not self._masks)
            or (name in _SUMS and not self._absolutes)
        ):
            return func(*args, **kwargs)
        operands = (*args, *kwargs.values())
        if any(isinstance(each, Tensor) and is_functorch_wrapped_tensor(each) for each in operands):
            return func(*args, **kwargs)  # inside vmap, values cannot be compared
        tensor = self._rectified(name, operands)
        if tensor is not None:
            rectified = torch.relu(tensor) * 2 if name in _SUMS else torch.relu(tensor)
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
        """Remember masks that show where a tensor is above or below 0, and absolute values."""
        if name in _ABSOLUTE and result.requires_grad:
            self._absolutes[id(result)] = result, result._version, operands[0].detach(), operands[0]._version
        if name in _COMPARISONS and len(operands) > 1:
            one, two = operands[:2]
            above = name in _ABOVE
            if isinstance(two, Tensor) and _is_zero(one):
                one, two, above = two, one, not above
            if isinstance(one, Tensor) and not one.is_inference() and _is_zero(two):
                self._masks[id(result)] = result, one.detach(), one._version, above
        elif name in _CASTS and (known := self._masks.get(id(operands[0]))):
            _, compared, version, above = known
            self._masks[id(result)] = result, compared, version, above ^ (name in _NOT)

    def _rectified(self, name: str, operands: tuple[Any, ...]) -> Tensor | None:
        """The tensor x, if the operation computes ReLU(x), or 2 ReLU(x) as a sum; else None."""
        if name in _SUMS:
            return self._beside_absolute(operands)
        if name in _TIMES and len(operands) > 1:
            candidates = [(operands[0], operands[1], True)]
            if not name.endswith("_") or name.startswith("__r"):
                candidates.append((operands[1], operands[0], True))
        elif name == "where" and len(operands) == 3:
            mask, one, two = operands
            if id(mask) not in self._masks:  # the form `one.where(mask, two)`
                mask, one = one, mask
            candidates = [(one, mask, True)] if _is_zero(two) else []
            if _is_zero(one):
                candidates.append((two, mask, False))
        elif name in _FILLS and len(operands) == 3:
            candidates = [(operands[0], operands[1], False)] if _is_zero(operands[2]) else []
        else:
            return None
        return next((tensor for tensor, mask, side in candidates if self._is_mask(mask, tensor, side)), None)

    def _beside_absolute(self, operands: tuple[Any, ...]) -> Tensor | None:
        """The tensor x of a sum x + |x|; else None."""
        if len(operands) != 2 or not all(isinstance(each, Tensor) and each.requires_grad for each in operands):
            return None
        for tensor, other in (operands, operands[::-1]):
            known = self._absolutes.get(id(other))
            if known is not None and known[1] == other._version and known[3] == known[2]._version:
                return tensor if _equal(known[2], tensor) else None
        return None

    def _is_mask(self, mask: Any, tensor: Any, side: bool) -> bool:
        """Whether a mask shows where this tensor is above 0 (`side` is True) or below."""
        if not isinstance(tensor, Tensor) or (known := self._masks.get(id(mask))) is None:
            return False
        _, compared, version, above = known
        return above == side and version == compared._version and _equal(compared, tensor)


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
