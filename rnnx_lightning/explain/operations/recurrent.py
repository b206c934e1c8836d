"""`nn.RNN`, `nn.LSTM`, `nn.GRU` and their cells, as operations that have a rule.

torch runs each of them as one operation, whose name depends on the device. A `TorchFunctionMode` sees the calls
before that.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rnnx_lightning.explain.cudnn import FUSED
from rnnx_lightning.explain.operations.fused_recurrent import all_steps
from rnnx_lightning.explain.tape import Tape

State = tuple[Tensor, ...]  # hidden state (B, H), and the memory cell of an LSTM (B, H)
Step = Callable[[Tensor, State, "Weights"], State]


class Weights(NamedTuple):
    """The weights of one layer in one direction.

    Attributes:
        input: (gates * H, D).
        hidden: (gates * H, H).
        input_bias: (gates * H,) or None.
        hidden_bias: (gates * H,) or None.
        projection: (P, H) or None.
    """

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None = None
    hidden_bias: Tensor | None = None
    projection: Tensor | None = None


def lstm_step(drive: Tensor, state: State, weights: Weights) -> State:
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t) [HS97]; `drive` is W x_t + b."""
    hidden, memory = state
    gates = drive + F.linear(hidden, weights.hidden, weights.hidden_bias)
    i, f, g, o = gates.chunk(4, -1)
    memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
    hidden = o.sigmoid() * memory.tanh()
    return (hidden if weights.projection is None else F.linear(hidden, weights.projection)), memory


def gru_step(drive: Tensor, state: State, weights: Weights) -> State:
    """h_t = (1 - z) n + z h_{t-1}, n = tanh(W x_t + b + r (U h_{t-1} + b'))."""
    (hidden,) = state
    reset, update, new = F.linear(hidden, weights.hidden, weights.hidden_bias).chunk(3, -1)
    drive_reset, drive_update, drive_new = drive.chunk(3, -1)
    keep = (drive_update + update).sigmoid()
    candidate = (drive_new + (drive_reset + reset).sigmoid() * new).tanh()
    return ((1 - keep) * candidate + keep * hidden,)


def _plain_step(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(drive: Tensor, state: State, weights: Weights) -> State:
        return (activation(drive + F.linear(state[0], weights.hidden, weights.hidden_bias)),)

    return step


STEPS: dict[str, Step] = {
    "lstm": lstm_step,
    "gru": gru_step,
    "rnn_tanh": _plain_step(torch.tanh),
    "rnn_relu": _plain_step(torch.relu),
}
CELLS = {getattr(torch, f"{name}_cell"): name for name in STEPS}
RECURRENT = {*FUSED, *CELLS}


class RecurrentModules(TorchFunctionMode):
    """A context that runs recurrent modules as operations that have a rule.

    Args:
        tape: records a layer as a few nodes; None: all layers run step by step.
        apart: packed sequences that are read backwards take their first step apart from those that have begun.
            Else their start state is a part of a signal, which is no constant where sums are "closed".
    """

    def __init__(self, tape: Tape | None, apart: bool = False) -> None:
        super().__init__()
        self._tape, self._apart = tape, apart

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace fused recurrent functions; run others unchanged."""
        if func not in RECURRENT:
            return func(*args, **(kwargs or {}))
        if func in FUSED:
            mixed = torch.is_autocast_enabled(args[0].device.type)  # it changes the types of single operations
            whole = None if self._tape is None or mixed else all_steps(self._tape, FUSED[func], *args)
            return fused(FUSED[func], *args, apart=self._apart) if whole is None else whole
        return cell(CELLS[func], *args)


def cell(name: str, x: Tensor, state: Any, *tensors: Any) -> Any:
    """One time step of a `*Cell` module."""
    weights = Weights(*tensors)
    new = STEPS[name](
        F.linear(x, weights.input, weights.input_bias), state if name == "lstm" else (state,), weights
    )
    return new if name == "lstm" else new[0]


def fused(name: str, x: Tensor, *arguments: Any, apart: bool = False) -> tuple[Tensor, ...]:
    """Run all layers, directions and time steps, for padded or packed sequences."""
    packed = isinstance(arguments[2], tuple | list)
    if packed:
        batch_sizes, start, tensors, biases, layers, dropout, training, bidirectional = arguments
        steps = list(x.split(batch_sizes.tolist()))
    else:
        start, tensors, biases, layers, dropout, training, bidirectional, batch_first = arguments
        steps = list(x.unbind(1 if batch_first else 0))
    if not steps:
        raise RuntimeError("a recurrent layer got a sequence without time steps")  # as torch does
    starts = tuple(start) if name == "lstm" else (start,)
    directions = 2 if bidirectional else 1
    per_direction = len(tensors) // (layers * directions)
    last: list[State] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = _weights(tensors[number * per_direction : (number + 1) * per_direction], bool(biases))
            state = tuple(part[number] for part in starts)
            shown, end = _scan(STEPS[name], steps, state, weights, direction == 1, apart)
            outputs.append(shown)
            last.append(end)
        steps = outputs[0] if directions == 1 else [torch.cat(both, -1) for both in zip(*outputs, strict=True)]
        if dropout and training and layer < layers - 1:
            steps = [F.dropout(step, dropout) for step in steps]
    output = torch.cat(steps) if packed else torch.stack(steps, 1 if arguments[-1] else 0)
    return output, *(torch.stack(parts) for parts in zip(*last, strict=True))


def _weights(tensors: Sequence[Tensor], biases: bool) -> Weights:
    if biases:
        return Weights(*tensors)
    return Weights(tensors[0], tensors[1], None, None, *tensors[2:])


def _scan(
    step: Step, inputs: list[Tensor], start: State, weights: Weights, reverse: bool, apart: bool
) -> tuple[list[Tensor], State]:
    """Run one layer in one direction: the hidden state of each time step, and the last state of each example.

    Sequences are sorted by length, so the unfinished ones are the first ones of the batch.
    """
    shown: list[Tensor] = []
    ended: list[State] = []
    sizes = [len(x) for x in inputs]
    drives = F.linear(torch.cat(inputs), weights.input, weights.input_bias).split(sizes)
    state = start
    size = len(start[0])
    for t in reversed(range(len(inputs))) if reverse else range(len(inputs)):
        if not reverse and sizes[t] < size:
            ended.append(tuple(part[sizes[t] :] for part in state))
            state = tuple(part[: sizes[t]] for part in state)
        elif reverse and t == len(inputs) - 1:
            state = tuple(part[: sizes[t]] for part in start)
        elif reverse and sizes[t] > (begun := len(state[0])):
            if apart:
                first = tuple(part[begun : sizes[t]] for part in start)
                new = step(drives[t][:begun], state, weights), step(drives[t][begun:], first, weights)
                state = tuple(map(torch.cat, zip(*new, strict=True)))
                shown.append(state[0])
                continue
            state = tuple(torch.cat([part, s[len(part) : sizes[t]]]) for part, s in zip(state, start, strict=True))
        size = sizes[t]
        state = step(drives[t], state, weights)
        shown.append(state[0])
    ended.append(state)
    if len(ended) > 1:
        state = tuple(torch.cat(parts[::-1]) for parts in zip(*ended, strict=True))
    return (shown[::-1] if reverse else shown), state
