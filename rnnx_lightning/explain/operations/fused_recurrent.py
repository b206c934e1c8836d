"""Recurrent modules as a few nodes per layer: the same result as `recurrent`, but faster.

A layer runs without a tape, with all W x_t in one product, and keeps what the backward pass needs. Both directions
are stacked: tensors are (W, T, B, H), with W = 1 or 2 directions, T time steps in reading order, and B examples.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._mode_utils import no_dispatch

from rnnx_lightning.explain.linear import IDENTITY, Operation
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.overwriting import current
from rnnx_lightning.explain.recurrence import HIDDEN, MEMORY, RECTIFIED, SUM_OF_STEPS, Argument, Memory, Recurrence
from rnnx_lightning.explain.rows import PASS, Movement
from rnnx_lightning.explain.tape import Tape

OF_EACH_WAY = Operation(lambda a, w: a @ w, lambda factors, w, _: factors @ w.mT, beside=(-1, -2))


class Weights(NamedTuple):
    """The weights of one layer: (W, D, gates * H), (W, H, gates * H), and biases (W, 1, gates * H) or None."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None
    hidden_bias: Tensor | None

    def of_units(self, start: int, stop: int) -> "Weights":
        """The weights of the units from `start` to `stop`."""
        w, u, b, c = (None if tensor is None else tensor[..., start:stop] for tensor in self)
        assert w is not None
        assert u is not None
        return Weights(w, u, b, c)


class Steps(NamedTuple):
    """The values of all time steps, (W, T, B, H).

    Attributes:
        hidden: h_t.
        argument: the argument of the signal's activation.
        reset: the gate that scales U h_{t-1}; None if there is none.
        keep: the gate that scales the memory of the previous step; None if there is no memory.
        written: what a step adds to the memory.
        memory: the memory cell of an LSTM.
    """

    hidden: Tensor
    argument: Tensor
    reset: Tensor | None = None
    keep: Tensor | None = None
    written: Tensor | None = None
    memory: Tensor | None = None


def all_steps(tape: Tape, name: str, x: Tensor, *arguments: Any) -> tuple[Tensor, ...] | None:
    """Run and record a call of `torch.lstm`, `torch.gru` or similar.

    Args:
        tape: the tape.
        name: of the function.
        x: (T, B, D) or (B, T, D), or a packed sequence.
        arguments: the other arguments of the function.

    Returns:
        The result of the function; None if it has to run step by step.
    """
    if isinstance(arguments[2], tuple | list) or tape.composite.sums == "closed" or not x.numel():
        return None
    start, tensors, biases, layers, dropout, training, bidirectional, batch_first = arguments
    ways = 2 if bidirectional else 1
    each = ways * (4 if biases else 2)
    if len(tensors) != layers * each:
        return None  # hidden states are projected
    x = current(tape, x)
    starts = [current(tape, part) for part in (start if name == "lstm" else (start,))]
    node = tape.find(x)
    if node is None or node.refusal is not None or any(tape.find(tensor) for tensor in (*starts, *tensors)):
        return None
    last = []
    for layer in range(layers):
        own = tensors[layer * each : (layer + 1) * each]
        x, states = _layer(
            tape, name, x, [part[layer * ways : (layer + 1) * ways] for part in starts], own, batch_first
        )
        last.append(states)
        if dropout and training and layer < layers - 1:
            # Time steps first, as in torch's own modules, so that the same random numbers drop the same units.
            dropped = F.dropout(x.transpose(0, 1).contiguous() if batch_first else x, dropout)
            x = dropped.transpose(0, 1) if batch_first else dropped
    return x, *(parts[0] if layers == 1 else torch.cat(parts) for parts in zip(*last, strict=True))


def _layer(
    tape: Tape, name: str, x: Tensor, start: list[Tensor], tensors: Sequence[Tensor], batch_first: bool
) -> tuple[Tensor, list[Tensor]]:
    """The output of a layer, in torch's layout, and its last states (W, B, H)."""
    source = tape.node(x)
    with no_dispatch():
        ways, batch = start[0].shape[:2]
        weights = _stacked(tensors, ways)
        read = _reading(ways, batch_first)
        length = x.shape[1 if batch_first else 0]

        # Each direction reads x, and writes its part of the output.
        rows = Movement(
            lambda part: read(part.unsqueeze(-2).expand(*part.shape[:-1], ways, -1)).flatten(1, 2),
            lambda part: _written(part.unflatten(1, (length, batch)), batch_first).sum(-2),
        )
        flat = tape.move(rows.apply(x), source, rows)
        if name != "gru" and weights.input_bias is not None and weights.hidden_bias is not None:
            weights = weights._replace(input_bias=weights.input_bias + weights.hidden_bias, hidden_bias=None)
        drive = _affine(flat, weights.input, weights.input_bias).unflatten(1, (length, batch))
        steps = STEPS[name](drive, start, weights)
        units, hidden = steps.hidden.shape[-1], steps.hidden
        signal = weights if steps.keep is None else weights.of_units(2 * units, 3 * units)
        call = Recurrence(tape.composite, hidden.shape, _argument(tape, flat, signal, steps, start[0], name))
        shown = [hidden]
        if name == "gru":
            _remember(tape, call, steps, start[0], hidden)
        elif steps.memory is not None:
            shown.append(steps.memory)
            memory = _remember(tape, call, steps, start[1], steps.memory)
            tape.note(hidden, Node(HIDDEN, (memory,), hidden, call))
        else:
            row = RECTIFIED if name == "rnn_relu" else HIDDEN
            tape.note(hidden, Node(row, call.argument.sources[:1], hidden, call, nonnegative=row is RECTIFIED))
        writing = Movement(
            lambda part: _written(part, batch_first).flatten(-2), lambda part: read(part.unflatten(-1, (ways, -1)))
        )
        output = _moved(tape, hidden, writing)
        return output, [_moved(tape, states, Movement(lambda part: part[:, -1])) for states in shown]


def _moved(tape: Tape, source: Tensor, movement: Movement) -> Tensor:
    """Record a move, with the result in memory of its own, because the network may overwrite it."""
    node = tape.node(source)
    value = movement.apply(source).clone(memory_format=torch.contiguous_format)
    return tape.move(value, node, movement)


def _reading(ways: int, batch_first: bool) -> Callable[[Tensor], Tensor]:
    """From (T, B, W, H) or (B, T, W, H) to (W, T, B, H)."""

    def read(part: Tensor) -> Tensor:
        part = part.permute(2, 1, 0, 3) if batch_first else part.permute(2, 0, 1, 3)
        return part.contiguous() if ways == 1 else torch.stack([part[0], part[1].flip(0)])

    return read


def _written(part: Tensor, batch_first: bool) -> Tensor:
    """From (W, T, B, H) to (T, B, W, H) or (B, T, W, H)."""
    part = part if len(part) == 1 else torch.stack([part[0], part[1].flip(0)])
    return part.permute(2, 1, 0, 3) if batch_first else part.permute(1, 2, 0, 3)


def _stacked(tensors: Sequence[Tensor], ways: int) -> Weights:
    each = len(tensors) // ways
    w, u, *biases = (
        torch.stack(list(tensors[n::each])) if ways == 2 else tensors[n].unsqueeze(0) for n in range(each)
    )
    b, c = (bias.unsqueeze(1) for bias in biases) if biases else (None, None)
    return Weights(w.mT, u.mT, b, c)


def _lstm(drive: Tensor, start: list[Tensor], weights: Weights) -> Steps:
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t)."""
    gates, opened = _empty(drive, weights, 4), _empty(drive, weights, 4)
    written, memories, hidden = (_empty(drive, weights, 1) for _ in range(3))
    argument = gates.chunk(4, -1)[2]
    i, f, _, o = opened.chunk(4, -1)
    h, c, u = *start, weights.hidden
    rows = (part.unbind(1) for part in (drive, gates, opened, argument, i, f, o, written, memories, hidden))
    for x, g, s, a, i_t, f_t, o_t, w, c_t, h_t in zip(*rows, strict=True):
        torch.sigmoid(torch.baddbmm(x, h, u, out=g), out=s)
        torch.mul(i_t, a.tanh(), out=w)
        c = torch.addcmul(w, f_t, c, out=c_t)
        h = torch.mul(o_t, c.tanh(), out=h_t)
    return Steps(hidden, argument, None, f, written, memories)


def _gru(drive: Tensor, start: list[Tensor], weights: Weights) -> Steps:
    """h_t = (1 - z) n + z h_{t-1}, n = tanh(W x_t + b + r (U h_{t-1} + b'))."""
    gates, argument, hidden = _empty(drive, weights, 2), _empty(drive, weights, 1), _empty(drive, weights, 1)
    reset, keep = gates.chunk(2, -1)
    units, (h,) = hidden.shape[-1], start
    of_gates, of_signal = drive[..., : 2 * units], drive[..., 2 * units :]
    for x, x_n, s, r, z, a, h_t in zip(
        *(part.unbind(1) for part in (of_gates, of_signal, gates, reset, keep, argument, hidden)), strict=True
    ):
        before = _affine(h, weights.hidden, weights.hidden_bias)
        torch.sigmoid(x + before[..., : 2 * units], out=s)
        torch.addcmul(x_n, r, before[..., 2 * units :], out=a)
        h = torch.lerp(a.tanh(), h, z, out=h_t)
    return Steps(hidden, argument, reset, keep, (1 - keep).mul_(argument.tanh()))


def _rnn(activation: Callable[..., Tensor]) -> Callable[[Tensor, list[Tensor], Weights], Steps]:
    """h_t = activation(W x_t + b + U h_{t-1} + b')."""

    def run(drive: Tensor, start: list[Tensor], weights: Weights) -> Steps:
        argument, hidden, h = _empty(drive, weights, 1), _empty(drive, weights, 1), start[0]
        for x, a, h_t in zip(*(part.unbind(1) for part in (drive, argument, hidden)), strict=True):
            h = h_t.copy_(activation(torch.baddbmm(x, h, weights.hidden, out=a)))
        return Steps(hidden, argument)

    return run


STEPS: dict[str, Callable[[Tensor, list[Tensor], Weights], Steps]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": _rnn(torch.tanh),
    "rnn_relu": _rnn(torch.relu),
}


def _empty(drive: Tensor, weights: Weights, gates: int) -> Tensor:
    """(W, T, B, gates * H), where each time step is contiguous."""
    ways, length, batch, _ = drive.shape
    return drive.new_empty(length, ways, batch, gates * weights.hidden.shape[1]).transpose(0, 1)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)


def _argument(tape: Tape, x: Tensor, weights: Weights, steps: Steps, start: Tensor, name: str) -> Node:
    """The node of W x_t + U h_{t-1} + b, one sum with one denominator."""
    source, batch = tape.find(x), start.shape[1]
    assert source is not None  # recorded just now
    value = steps.argument.flatten(1, 2)

    def mapped(source: Node, x: Tensor, weight: Tensor, like: Tensor) -> Node:
        new = tape.mapped(source, x, OF_EACH_WAY, weight, None, like)
        new.value = None
        for _, layer in new.call.maps:
            layer.output = None
        return new

    terms = [mapped(source, x, weights.input, value)]
    terms[0].tape = tape
    tape.nodes.append(terms[0])
    if steps.hidden.shape[1] > 1:  # the state before the first step is a constant
        state = steps.hidden[:, :-1].flatten(1, 2)
        known = Node(PASS, (), state, nonnegative=name == "rnn_relu")
        terms.append(mapped(known, state, weights.hidden, value[:, batch:]))
    first = torch.bmm(start, weights.hidden) if bool(start.any()) else None
    reset = None if steps.reset is None else steps.reset.flatten(1, 2)
    node = Node(SUM_OF_STEPS, terms, value, Argument(weights.input_bias, weights.hidden_bias, first, reset))
    # U h_0 has the same rule as U h_t, although it is a constant.
    drive, hidden = terms[0].rule, tape.composite.rule(tape.path, reads_pixels=False)
    assert drive is not None  # a sum
    rule = tape.common_rule(drive, hidden) if len(terms) > 1 else hidden if drive.adapts else drive
    tape.sum_of(node, rule, value, all(term.by_value for term in terms))
    node.constant = True
    return node


def _remember(tape: Tape, call: Recurrence, steps: Steps, start: Tensor, value: Tensor) -> Node:
    """The node of the memories of all steps: merged sums, or (memory="per_step") one sum per step."""
    assert steps.keep is not None
    assert steps.written is not None
    closed = tape.composite.memory == "per_step"

    def alone(signal: Tensor) -> Node:
        return tape.mapped(Node(PASS, (), signal), signal, IDENTITY, None, None, signal)

    keep, written = steps.keep, alone(steps.written)
    kept = alone(keep[:, 1:] * value[:, :-1]) if closed and value.shape[1] > 1 else None
    call.memory = Memory(keep, written, kept, start if bool(start.any()) else None)
    node = Node(MEMORY, call.argument.sources[:1], value, call)
    assert written.rule is not None  # a sum
    tape.sum_of(node, written.rule, value, written.by_value)
    node.constant, node.scaled, node.exact = call.memory.start is not None, not closed, True
    node.depth = 0 if closed else value.shape[1]
    tape.note(value, node)
    return node
