"""Explaining what does not fit into memory at once."""

from typing import Any

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, Target, resolve_target, trains
from rnnx_lightning.explain.examples import cut, joined
from rnnx_lightning.explain.inputs import Bound, Inputs, batch_size, network_of, output_at
from rnnx_lightning.explain.outputs import explained_value, no_classes


class InChunks(Attributor):
    """Another method, on a part of the batch or of the sequence at a time: the same relevance with less memory.

    Methods that draw random numbers (`SmoothGrad`, `Random`) draw the same ones for each part.

    Args:
        method: any attributor.
        examples: at a time; None: all. Inputs of any structure are divided, and further arguments that hold one
            entry for each example. Then the network runs once more, without gradients, to check this.
        steps: time steps at a time; None: all. Only for `LRP` and `DeepTaylor` without a graph. The values inside
            fused recurrent layers (`nn.LSTM`, `nn.GRU`, `nn.RNN`) are then in memory for so many steps only, and
            computed twice or three times. About the square root of the sequence's length is best. Inputs and
            outputs of the layers stay in memory.

    Raises:
        ValueError: a part is empty, less than two steps, or not possible with this method; or (when called) the
            examples cannot be divided.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP, Epsilon
        >>> lstm = nn.LSTM(3, 4, batch_first=True)
        >>> x = torch.randn(2, 50, 3)
        >>> def last(output):
        ...     return output[0][:, -1, 0]
        >>> whole = LRP(Epsilon(0.01))(lstm, x, last)
        >>> torch.allclose(InChunks(LRP(Epsilon(0.01)), steps=7)(lstm, x, last), whole, atol=1e-5)
        True
    """

    warns_of_nan = True

    def __init__(self, method: Attributor, examples: int | None = None, steps: int | None = None) -> None:
        if examples is not None and examples < 1:
            raise ValueError(f"examples={examples} must be at least 1")
        if steps is not None and steps < 2:
            raise ValueError(f"steps={steps} must be at least 2")
        self.method = method if steps is None else method.in_segments(steps)
        self.examples = examples

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        batch, parts = batch_size(x), []
        if self.examples is None or batch <= self.examples:
            return self.method(model, x, target)
        method = self.method.fitted(x)
        arguments = model.arguments if isinstance(model, Bound) else {}
        for start in range(0, batch, self.examples):
            stop = start + self.examples
            bound = Bound(network_of(model), cut(arguments, start, stop, batch))
            part = cut(x, start, stop, batch)
            chosen = resolve_target(bound, part, None) if target is None else _of_part(target, start, stop, batch)
            if start == 0 and not (isinstance(x, Tensor) and not arguments):
                _check(model, x, target, bound, part, chosen)
            parts.append(method(bound, part, chosen))
        return joined(parts, x, batch)


def _of_part(target: Any, start: int, stop: int, batch: int) -> Any:
    """The target of some examples.

    Raises:
        ValueError: it is not for one example, nor for all.
    """
    if isinstance(target, tuple):  # an index of one entry is for all examples
        return tuple(
            index if torch.as_tensor(index).numel() == 1 else _of_part(index, start, stop, batch)
            for index in target
        )
    if not isinstance(target, list) and getattr(target, "ndim", 0) != 1:  # of tensors and of NumPy's arrays
        return target
    if len(target) != batch:
        raise no_classes(batch, f"({len(target)},)")
    return target[start:stop]


def _check(model: nn.Module, x: Inputs, target: Target, bound: Bound, part: Inputs, chosen: Target) -> None:
    """Compare the output for the first examples with that for the whole batch.

    Raises:
        ValueError: they differ, so something that is not of single examples was cut.
    """
    if any(map(trains, network_of(model).modules())):
        return  # random numbers would differ, too
    examples = batch_size(part)
    try:
        whole, _ = explained_value(output_at(model, x), batch_size(x), target)
        own, _ = explained_value(output_at(bound, part), examples, chosen)
        largest = float(whole.nan_to_num(0, 0, 0).abs().max())
        first = whole[:examples].to(own.dtype)
        same = torch.allclose(own, first, rtol=1e-2, atol=1e-2 * largest, equal_nan=True)
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"{_UNCLEAR} The network says: {error}") from error
    if not same:
        raise ValueError(_UNCLEAR)


_UNCLEAR = (
    "examples: the batch cannot be divided, because its first examples give another output without the rest. "
    "Tensors (B, ...) and (layers, B, H) are divided; perhaps one does not hold examples, such as a mask of B "
    "time steps. Choose another batch size, or explain parts of the batch yourself."
)
