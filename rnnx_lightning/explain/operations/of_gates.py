"""Activations that are written with gates: 2 sigmoid(2 x) - 1 is a tanh, exp(x) - 1 a part of ELU.

A sigmoid or exp, times a number, plus a number, is a gate, such as 1 - gate. If it is 0 where its argument is 0,
it is a magnitude: it still scales signals, and as a signal, it passes relevance on. But 1 - exp(-ReLU(x)), the
rest of a decay, is no more than a gate.
"""

from torch import Tensor

from rnnx_lightning.explain.elementwise import never_negative
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import MOVE, PASS, Scaling
from rnnx_lightning.explain.tape import Tape

ROUNDING = 1e-9  # of numbers of Python


def at_zero(gate: Node) -> float | None:
    """The value of a gate where its argument is 0; None if that is not known."""
    while gate.row is MOVE:
        (source,) = gate.sources
        assert source is not None  # else there would be no node
        gate = source
    return gate.at_zero


def of_argument(tape: Tape, value: Tensor, gate: Node, at_zero: float) -> Tensor:
    """Record a gate plus a number, or plus another gate of the same argument.

    Args:
        tape: the tape.
        value: the sum.
        gate: the gate.
        at_zero: the sum where the argument of the gate is 0.
    """
    x = _argument(tape, gate)
    tape.gate_of(value, gate, nonnegative=never_negative(value), entrywise=True)
    made = tape.node(value)
    made.at_zero = at_zero
    made.magnitude = abs(at_zero) < ROUNDING and not x.nonnegative and (x.magnitude or not x.gate)
    if made.magnitude:
        made.row, made.sources, made.reason = PASS, (x,), None
    return value


def together_at_zero(tape: Tape, one: Node, two: Node) -> float | None:
    """The sum of two gates where their argument is 0; None if that is not known, or if they are two signals."""
    if one.at_zero is None or two.at_zero is None or _argument(tape, one) is not _argument(tape, two):
        return None
    both = one.at_zero + two.at_zero
    return both if abs(both) < ROUNDING or (one.reason and two.reason) else None


def _argument(tape: Tape, gate: Node) -> Node:
    """The value that a gate is a function of, without the numbers that scale it, but moved as the gate is."""
    node, moves = gate.first, list[Node]()
    while True:
        if node.gate and node.row is MOVE:
            moves.append(node)
        elif node.at_zero is None and not (
            isinstance(node.call, Scaling) and isinstance(node.call.factor, int | float)
        ):
            break
        (source, *_) = node.sources
        assert source is not None  # else there would be no node
        node = source.first
    for move in reversed(moves):
        node = tape.append(Node(MOVE, (node,), move, move.call))
    return node
