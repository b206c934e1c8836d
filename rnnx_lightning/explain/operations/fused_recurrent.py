"""Recurrent modules as one node a layer and direction, which is what `recurrent` does step by step, only faster.

torch's own function gives the hidden states. Gates and memories follow from them, all steps at once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from rnnx_lightning.explain.linear import IDENTITY
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.linear_maps import MATRIX_PRODUCT
from rnnx_lightning.explain.recurrence import HIDDEN, MEMORY, RECTIFIED, SUM_OF_STEPS, Argument, Memory, Recurrence
from rnnx_lightning.explain.rows import PASS
from rnnx_lightning.explain.tape import Tape


class Direction(NamedTuple):
    """The weights of one layer in one direction, for all gates; biases may be None."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None = None
    hidden_bias: Tensor | None = None


class Steps(NamedTuple):
    """What happens in all steps of one direction, (T * B, H), steps one below the other.

    Attributes:
        drive: W x_t + b of the signal.
        recurrent: U h_{t-1} + b' of the signal.
        argument: what the signal's activation is applied to.
        reset: the gate that scales `recurrent`; None for none.
        keep: the gate that scales the memory of the step before; None for no memory.
        written: what a step adds to the memory.
    """

    drive: Tensor
    recurrent: Tensor
    argument: Tensor
    reset: Tensor | None = None
    keep: Tensor | None = None
    written: Tensor | None = None


def all_steps(tape: Tape, name: str, x: Tensor, *arguments: Any) -> tuple[Tensor, ...] | None:
    """A call of `torch.lstm`, `torch.gru` and the like.

    Args:
        tape: where it is written down.
        name: of the function.
        x: (T, B, D) or (B, T, D), or a packed sequence.
        arguments: the others, as the function takes them.

    Returns:
        What the function gives; None if it has to be taken apart step by step.
    """
    if isinstance(arguments[2], tuple | list) or tape.composite.sums == "closed" or not x.numel():
        return None
    start, tensors, biases, layers, dropout, training, bidirectional, batch_first = arguments
    ways = 2 if bidirectional else 1
    if len(tensors) != layers * ways * (4 if biases else 2):
        return None  # hidden states are projected
    weights = _directions(tensors, layers * ways)
    starts = [part.clone() for part in (start if name == "lstm" else (start,))]
    x = x.transpose(0, 1) if batch_first else x.clone()
    node = tape.find(x)
    if node is None or node.refusal is not None or any(tape.find(tensor) for tensor in (*starts, *tensors)):
        return None
    last = []
    for layer in range(layers):
        shown = []
        for way in range(ways):
            number = layer * ways + way
            state = tuple(part[number] for part in starts)
            hidden, end = one_direction(tape, name, x.flip(0) if way else x, state, weights[number])
            shown.append(hidden.flip(0) if way else hidden)
            last.append(end)
        x = torch.cat(shown, -1) if bidirectional else shown[0]
        if dropout and training and layer < layers - 1:
            x = F.dropout(x, dropout)
    return x.transpose(0, 1) if batch_first else x, *(torch.stack(parts) for parts in zip(*last, strict=True))


def _directions(tensors: Sequence[Tensor], count: int) -> list[Direction]:
    each = len(tensors) // count
    return [Direction(*tensors[n * each : (n + 1) * each]) for n in range(count)]


def one_direction(
    tape: Tape, name: str, x: Tensor, start: tuple[Tensor, ...], weights: Direction
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The hidden states (T, B, H) of a sequence (T, B, D) that is made of the input, and the last states (B, H)."""
    flat = x.flatten(0, 1)
    source = tape.find(flat)
    assert source is not None  # x is made of the input
    with _disable_current_modes():
        hidden = _forward(name, x, start, weights)
        before = torch.cat([start[0], hidden[:-1].flatten(0, 1)])
        steps = _STEPS[name](flat, before, weights)
        units, batch = before.shape[1], len(start[0])
        signal = weights if steps.keep is None else _rows(weights, 2 * units, 3 * units)
        call = _sum(tape, source, flat, signal, steps, before, name, batch)
        drive, value = call.argument.sources[0], hidden
        if steps.keep is None:
            tape.note(
                hidden,
                Node(RECTIFIED if name == "rnn_relu" else HIDDEN, (drive,), hidden, call, name == "rnn_relu"),
            )
        elif name == "gru":
            _remember(tape, call, steps, start[0], hidden)
        else:
            value = _scan(steps, start[1], hidden)
            memory = _remember(tape, call, steps, start[1], value)
            tape.note(hidden, Node(HIDDEN, (memory,), hidden, call))
    return hidden, (hidden[-1], value[-1]) if name == "lstm" else (hidden[-1],)


def _forward(name: str, x: Tensor, start: tuple[Tensor, ...], weights: Direction) -> Tensor:
    """The hidden states by torch's own function."""
    states = tuple(state.unsqueeze(0) for state in start)
    tensors = [tensor for tensor in weights if tensor is not None]
    run = getattr(torch, name)
    hidden: Tensor = run(
        x, states if name == "lstm" else states[0], tensors, len(tensors) > 2, 1, 0.0, False, False, False
    )[0]
    return hidden


def _rows(weights: Direction, start: int, stop: int) -> Direction:
    """Of some of the gates' units."""
    return Direction(*(None if tensor is None else tensor[start:stop] for tensor in weights))


def _lstm(x: Tensor, before: Tensor, weights: Direction) -> Steps:
    """c_t = f c_{t-1} + i g; what the output gate does is known."""
    width = 3 * before.shape[1]
    weights = _rows(weights, 0, width)
    drive, recurrent = _sums(x, before, weights)
    i, f, argument = (drive + recurrent).chunk(3, 1)
    drive, recurrent = drive.chunk(3, 1)[2], recurrent.chunk(3, 1)[2]
    return Steps(drive, recurrent, argument, None, f.sigmoid(), i.sigmoid().mul_(argument.tanh()))


def _gru(x: Tensor, before: Tensor, weights: Direction) -> Steps:
    """h_t = (1 - z) n + z h_{t-1}, n = tanh(W x_t + b + r (U h_{t-1} + b'))."""
    (x_r, x_z, drive), (h_r, h_z, recurrent) = (part.chunk(3, 1) for part in _sums(x, before, weights))
    reset, keep = (x_r + h_r).sigmoid_(), (x_z + h_z).sigmoid_()
    argument = torch.addcmul(drive, reset, recurrent)
    return Steps(drive, recurrent, argument, reset, keep, (1 - keep) * argument.tanh())


def _rnn(x: Tensor, before: Tensor, weights: Direction) -> Steps:
    """h_t is the signal."""
    drive, recurrent = _sums(x, before, weights)
    return Steps(drive, recurrent, drive + recurrent)


def _sums(x: Tensor, before: Tensor, weights: Direction) -> tuple[Tensor, Tensor]:
    return F.linear(x, weights.input, weights.input_bias), F.linear(before, weights.hidden, weights.hidden_bias)


_STEPS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn, "rnn_relu": _rnn}


def _sum(
    tape: Tape, source: Node, x: Tensor, weights: Direction, steps: Steps, before: Tensor, name: str, batch: int
) -> Recurrence:
    """W x_t + U h_{t-1} + b, one sum with one denominator."""
    drive = tape.mapped(source, x, MATRIX_PRODUCT, weights.input.t(), weights.input_bias, steps.drive)
    drive.tape = tape
    tape.nodes.append(drive)
    terms, length = [drive], len(x) // batch
    if length > 1:
        state, later = before[batch:], steps.recurrent[batch:]
        known = Node(PASS, (), state, nonnegative=name == "rnn_relu")
        terms.append(tape.mapped(known, state, MATRIX_PRODUCT, weights.hidden.t(), weights.hidden_bias, later))
    rules = [term.rule for term in terms if term.rule is not None]
    call = Argument(weights.input_bias, steps.recurrent[:batch], weights.hidden_bias, steps.reset)
    argument = Node(SUM_OF_STEPS, terms, steps.argument, call)
    tape.sum_of(
        argument, tape.common_rule(rules[0], rules[-1]), steps.argument, all(term.by_value for term in terms)
    )
    argument.constant = True
    return Recurrence(tape.composite, (length, batch, before.shape[1]), argument)


def _scan(steps: Steps, start: Tensor, like: Tensor) -> Tensor:
    """The memories of all steps, (T, B, H)."""
    assert steps.keep is not None and steps.written is not None  # there is a memory
    result, memory = torch.empty_like(like), start
    parts = (part.view(like.shape).unbind() for part in (steps.keep, steps.written, result))
    for keep, written, place in zip(*parts, strict=True):
        memory = torch.addcmul(written, keep, memory, out=place)
    return result


def _remember(tape: Tape, call: Recurrence, steps: Steps, start: Tensor, value: Tensor) -> Node:
    """The memories of all steps as sums of what was written: of all steps, or of each step and what it was before."""
    assert steps.keep is not None and steps.written is not None  # there is a memory
    closed = tape.composite.memory == "per_step"

    def alone(signal: Tensor) -> Node:
        return tape.mapped(Node(PASS, (), signal), signal, IDENTITY, None, None, signal)

    keep, written = steps.keep.view(value.shape), alone(steps.written.view(value.shape))
    kept = alone(keep[1:] * value[:-1]) if closed and len(value) > 1 else None
    call.memory = Memory(keep, written, kept, start if bool(start.any()) else None)
    node = Node(MEMORY, call.argument.sources[:1], value, call)
    assert written.rule is not None  # a sum
    tape.sum_of(node, written.rule, value, written.by_value)
    node.constant, node.scaled, node.exact = call.memory.start is not None, not closed, True
    node.depth = 0 if closed else len(value)
    tape.note(value, node)
    return node
