"""Recurrent modules as a few nodes per layer: the same result as `recurrent`, but faster."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._mode_utils import no_dispatch

from rnnx_lightning.explain.operations.recurrent_layer import Layer
from rnnx_lightning.explain.operations.recurrent_steps import stacked
from rnnx_lightning.explain.overwriting import alias, current
from rnnx_lightning.explain.rows import Movement
from rnnx_lightning.explain.tape import Tape


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
    starts, tensors = list(start if name == "lstm" else (start,)), list(tensors)
    if tape.retired:
        x, starts, tensors = (current(tape, part) for part in (x, starts, tensors))
    node = tape.find(x)
    if node is None or node.refusal is not None or any(tape.find(tensor) for tensor in (*starts, *tensors)):
        return None
    with no_dispatch():
        starts, tensors = alias(tape, starts), alias(tape, tensors)
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
        weights = stacked(tensors, ways)
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
        layer = Layer(tape, name, weights, start)
        if tape.steps is None or length <= tape.steps:
            hidden, memory = layer.at_once(flat)
        else:
            hidden, memory = layer.in_segments(flat, tape.steps)
        writing = Movement(
            lambda part: _written(part, batch_first).flatten(-2), lambda part: read(part.unflatten(-1, (ways, -1)))
        )
        output = _moved(tape, hidden, writing)
        shown = [hidden] if memory is None else [hidden, memory]
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
