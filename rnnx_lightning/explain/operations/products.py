"""Products of two values that both depend on the input: of two signals, or of two gates."""

from typing import Any

from torch import Tensor

from rnnx_lightning.explain.linear import Operation, held
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import DETACHED, HALF, MOVE
from rnnx_lightning.explain.tape import Tape


def are_detached(node: Node) -> bool:
    """Whether pixels are detached, and perhaps moved after that."""
    while node.row is MOVE and node.call is not DETACHED and node.sources[0] is not None:
        node = node.sources[0]
    return node.call is DETACHED


def product_of_signals(
    tape: Tape, func: Any, value: Tensor, one: tuple[Node, Tensor], two: tuple[Node, Tensor], function: Any
) -> Tensor:
    """Record a product of two signals, as chosen by the composite."""
    (first, a), (second, b) = one, two
    way = tape.composite.products
    if way == "refuse":
        advice = (
            "It multiplies two signals, neither of which is a gate (the output of a sigmoid). It is undefined "
            'which of them gets the relevance. Choose: Composite(..., products="half"), "left" or "right".'
        )
        return tape.refused(func, value, advice, a, b)
    if way == "half":
        return tape.note(value, Node(HALF, (first, second), value, (function, (held(a), held(b)))))
    (_node, signal), factor = (one, b) if way == "left" else (two, a)
    operation = (Operation if way == "left" else _of_second)(function)
    return tape.linear(func, signal, operation, held(factor), None, value)


def _of_second(function: Any) -> Operation:
    """A product as a linear map of its second factor."""
    return Operation(lambda x, w: function(w, x))


def product_of_gates(
    tape: Tape, func: Any, value: Tensor, one: tuple[Node, Tensor], two: tuple[Node, Tensor], function: Any
) -> Tensor:
    """Record a product of two gates, which is a gate.

    As a signal, it is refused unless the composite chooses; but what attention weights weigh is the signal.
    """
    (first, a), (second, b) = one, two
    weighed = second if first.weights else first
    if first.weights is not second.weights and weighed.reason is None and not weighed.lost:
        (signal, weights), linear = ((b, a), _of_second) if first.weights else ((a, b), Operation)
        tape.linear(func, signal, linear(function), held(weights), None, value)
    elif tape.composite.products == "refuse" or first.reason or second.reason:
        return tape.gate_of(value, first, second)
    else:
        product_of_signals(tape, func, value, one, two, function)
    made = tape.node(value)
    made.gate, made.nonnegative = True, first.nonnegative and second.nonnegative
    return value
