"""Recurrent modules as a few nodes a layer, which is what `recurrent` does step by step, only faster.

torch's own function gives the hidden states. Gates and memories follow from them, all steps at once. Both directions
lie beside each other: tensors are (W, T, B, H), of W = 1 or 2 ways to read T steps of B examples, in the order in
which the way reads them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._mode_utils import no_dispatch

from rnnx_lightning.explain.linear import IDENTITY, Operation
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.recurrence import HIDDEN, MEMORY, RECTIFIED, SUM_OF_STEPS, Argument, Memory, Recurrence
from rnnx_lightning.explain.rows import PASS, Movement
from rnnx_lightning.explain.tape import Tape

OF_EACH_WAY = Operation(lambda a, w: a @ w, lambda factors, w, _: factors @ w.mT, beside=(-1, -2))


class Weights(NamedTuple):
    """Of one layer: (W, D, gates * H), (W, H, gates * H), and biases (W, 1, gates * H) or None."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None
    hidden_bias: Tensor | None

    def of_units(self, start: int, stop: int) -> "Weights":
        """Those of some of the gates' units."""
        w, u, b, c = (None if tensor is None else tensor[..., start:stop] for tensor in self)
        assert w is not None
        assert u is not None
        return Weights(w, u, b, c)


class Steps(NamedTuple):
    """What happens in all steps, (W, T * B, H).

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
    each = ways * (4 if biases else 2)
    if len(tensors) != layers * each:
        return None  # hidden states are projected
    x = tape.current(x)
    starts = [tape.current(part) for part in (start if name == "lstm" else (start,))]
    node = tape.find(x)
    if node is None or node.refusal is not None or any(tape.find(tensor) for tensor in (*starts, *tensors)):
        return None
    last = []
    for layer in range(layers):
        own = tensors[layer * each : (layer + 1) * each]
        x, states = _layer(tape, name, x, [part[layer * ways : (layer + 1) * ways] for part in starts], own, batch_first)
        last.append(states)
        if dropout and training and layer < layers - 1:
            x = F.dropout(x, dropout)
    return x, *(parts[0] if layers == 1 else torch.cat(parts) for parts in zip(*last, strict=True))


def _layer(
    tape: Tape, name: str, x: Tensor, start: list[Tensor], tensors: Sequence[Tensor], batch_first: bool
) -> tuple[Tensor, list[Tensor]]:
    """The output of a layer, as torch's function gives it, and its last states (W, B, H)."""
    source = tape.find(x)
    assert source is not None  # x is made of the input
    with no_dispatch():
        states = tuple(start) if name == "lstm" else start[0]
        ways, biased = len(start[0]), len(tensors) > 2 * len(start[0])
        output = getattr(torch, name)(x, states, tensors, biased, 1, 0.0, False, ways == 2, batch_first)[0]
        weights = _stacked(tensors, ways)
        read = _reading(ways, batch_first)
        hidden = read(output.unflatten(-1, (ways, -1)))
        _, length, batch, units = hidden.shape
        before = torch.cat([start[0].unsqueeze(1), hidden[:, :-1]], 1).flatten(1, 2)

        # Every way reads x; each writes its part of the output.
        rows = Movement(lambda part: read(part.unsqueeze(-2).expand(*part.shape[:-1], ways, -1)).flatten(1, 2), lambda part: _written(part.unflatten(1, (length, batch)), batch_first).sum(-2))
        flat = tape.move(rows.apply(x), source, rows)
        steps = STEPS[name](flat, before, weights)
        signal = weights if steps.keep is None else weights.of_units(2 * units, 3 * units)
        call = Recurrence(tape.composite, hidden.shape, _argument(tape, flat, signal, steps, before, batch, name))
        drive, shown = call.argument.sources[:1], [hidden]
        if name == "gru":
            _remember(tape, call, steps, start[0], hidden)
        elif name == "lstm":
            shown.append(_scan(steps, start[1], hidden))
            memory = _remember(tape, call, steps, start[1], shown[1])
            tape.note(hidden, Node(HIDDEN, (memory,), hidden, call))
        else:
            row = RECTIFIED if name == "rnn_relu" else HIDDEN
            tape.note(hidden, Node(row, drive, hidden, call, nonnegative=row is RECTIFIED))
        writing = Movement(lambda part: _written(part, batch_first).flatten(-2), lambda part: read(part.unflatten(-1, (ways, -1))))
        return _moved(tape, hidden, output, writing), [_moved(tape, t, t[:, -1], Movement(lambda part: part[:, -1])) for t in shown]


def _moved(tape: Tape, source: Tensor, value: Tensor, movement: Movement) -> Tensor:
    node = tape.find(source)
    assert node is not None  # just noted
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
    w, u, *biases = (torch.stack(tensors[n::each]) if ways == 2 else tensors[n].unsqueeze(0) for n in range(each))
    b, c = (bias.unsqueeze(1) for bias in biases) if biases else (None, None)
    return Weights(w.mT, u.mT, b, c)


def _lstm(x: Tensor, before: Tensor, weights: Weights) -> Steps:
    """c_t = f c_{t-1} + i g; what the output gate does is known."""
    drive, recurrent = _sums(x, before, weights.of_units(0, 3 * before.shape[-1]))
    i, f, argument = (drive + recurrent).chunk(3, -1)
    (_, _, drive), (_, _, recurrent) = drive.chunk(3, -1), recurrent.chunk(3, -1)
    return Steps(drive, recurrent, argument, None, f.sigmoid(), i.sigmoid().mul_(argument.tanh()))


def _gru(x: Tensor, before: Tensor, weights: Weights) -> Steps:
    """h_t = (1 - z) n + z h_{t-1}, n = tanh(W x_t + b + r (U h_{t-1} + b'))."""
    (x_r, x_z, drive), (h_r, h_z, recurrent) = (part.chunk(3, -1) for part in _sums(x, before, weights))
    reset, keep = (x_r + h_r).sigmoid_(), (x_z + h_z).sigmoid_()
    argument = torch.addcmul(drive, reset, recurrent)
    return Steps(drive, recurrent, argument, reset, keep, (1 - keep).mul_(argument.tanh()))


def _rnn(x: Tensor, before: Tensor, weights: Weights) -> Steps:
    """h_t is the signal."""
    drive, recurrent = _sums(x, before, weights)
    return Steps(drive, recurrent, drive + recurrent)


STEPS: dict[str, Callable[[Tensor, Tensor, Weights], Steps]] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn, "rnn_relu": _rnn}


def _sums(x: Tensor, before: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """W x_t + b and U h_{t-1} + b'."""
    w, u, b, c = weights
    return x @ w if b is None else torch.baddbmm(b, x, w), before @ u if c is None else torch.baddbmm(c, before, u)


def _argument(tape: Tape, x: Tensor, weights: Weights, steps: Steps, before: Tensor, batch: int, name: str) -> Node:
    """W x_t + U h_{t-1} + b, one sum with one denominator."""
    source = tape.find(x)
    assert source is not None  # just noted
    terms = [tape.mapped(source, x, OF_EACH_WAY, weights.input, weights.input_bias, steps.drive)]
    terms[0].tape = tape
    tape.nodes.append(terms[0])
    if before.shape[1] > batch:  # what was before the first step is a constant
        state, later = before[:, batch:], steps.recurrent[:, batch:]
        known = Node(PASS, (), state, nonnegative=name == "rnn_relu")
        terms.append(tape.mapped(known, state, OF_EACH_WAY, weights.hidden, weights.hidden_bias, later))
    call = Argument(weights.input_bias, steps.recurrent[:, :batch], weights.hidden_bias, steps.reset)
    node = Node(SUM_OF_STEPS, terms, steps.argument, call)
    first, second = terms[0].rule, terms[-1].rule
    assert first is not None
    assert second is not None
    tape.sum_of(node, tape.common_rule(first, second), steps.argument, all(term.by_value for term in terms))
    node.constant = True
    return node


def _scan(steps: Steps, start: Tensor, like: Tensor) -> Tensor:
    """The memories of all steps."""
    assert steps.keep is not None
    assert steps.written is not None
    result, memory = torch.empty_like(like), start
    parts = (part.view(like.shape).unbind(1) for part in (steps.keep, steps.written, result))
    for keep, written, place in zip(*parts, strict=True):
        memory = torch.addcmul(written, keep, memory, out=place)
    return result


def _remember(tape: Tape, call: Recurrence, steps: Steps, start: Tensor, value: Tensor) -> Node:
    """The memories of all steps: sums of all that was written, or each of what was written and what was before."""
    assert steps.keep is not None
    assert steps.written is not None
    closed = tape.composite.memory == "per_step"

    def alone(signal: Tensor) -> Node:
        return tape.mapped(Node(PASS, (), signal), signal, IDENTITY, None, None, signal)

    keep, written = steps.keep.view(value.shape), alone(steps.written.view(value.shape))
    kept = alone(keep[:, 1:] * value[:, :-1]) if closed and value.shape[1] > 1 else None
    call.memory = Memory(keep, written, kept, start if bool(start.any()) else None)
    node = Node(MEMORY, call.argument.sources[:1], value, call)
    assert written.rule is not None  # a sum
    tape.sum_of(node, written.rule, value, written.by_value)
    node.constant, node.scaled, node.exact = call.memory.start is not None, not closed, True
    node.depth = 0 if closed else value.shape[1]
    tape.note(value, node)
    return node
