"""Elementwise sums, differences, products and quotients."""

from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.comparisons import rectifies
from rnnx_lightning.explain.elementwise import is_number, is_zero, never_negative, written_out
from rnnx_lightning.explain.linear import held
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.centring import averaged, centred
from rnnx_lightning.explain.operations.gates import refused_as_signal, softmax_written_out
from rnnx_lightning.explain.operations.of_gates import at_zero, of_argument, together_at_zero
from rnnx_lightning.explain.operations.products import are_detached, product_of_gates, product_of_signals
from rnnx_lightning.explain.operations.table import SCALES, aten, records
from rnnx_lightning.explain.operations.tokens import whole_numbers
from rnnx_lightning.explain.operations.united import CANCELLED, stands_for, united
from rnnx_lightning.explain.rows import PASS, UNMOVED, Movement, Scaling
from rnnx_lightning.explain.tape import Tape

Operand = Any  # a tensor or a number


@records("add.Tensor add.Scalar")
def add(
    tape: Tape, func: Any, one: Operand, two: Operand, alpha: Operand = 1, *, value: Tensor | None = None
) -> Tensor:
    """A sum, merged with its terms into one linear map."""
    value = func(one, two, alpha=alpha) if value is None else value
    if is_whole(value):
        return whole_numbers(tape, func, one, two, value=value)
    if alpha != 1:
        two = (
            tape.record(aten.mul.Tensor, (two, torch.as_tensor(alpha, dtype=value.dtype)), {})
            if isinstance(two, Tensor)
            else two * alpha
        )
    first, second = tape.find(one), tape.find(two)
    if first is None or second is None:
        node, tensor, constant = (second, two, one) if first is None else (first, one, two)
        assert node is not None  # one of them depends on the input
        return plus_constant(tape, value, node, tensor, constant)
    for x, mean in ((one, two), (two, one)):
        if x.shape == value.shape and (dims := averaged(tape, x, mean, sign=-1)) is not None:
            return tape.stand_in(value, centred(tape, func, x, dims))
    both = first.gate and second.gate
    if not both and (first.lost or second.lost):  # a gate times a constant is a constant
        node, tensor, constant = (second, two, one) if first.lost else (first, one, two)
        plus_constant(tape, value, node, tensor, held(constant))
        found = tape.node(value)
        found.gated = True
        return value
    if both and (at_zero := together_at_zero(tape, first, second)) is not None:
        return of_argument(tape, value, first, at_zero)
    scales = any(node.gate and not node.magnitude for node in (first, second))
    result = None if scales else united(tape, value, (first, one), (second, two))
    if result is None:
        result = tape.add(value, (first, one), (second, two))
    found = tape.node(result)
    found.gate, found.lost = both, both and (first.lost or second.lost)
    found.magnitude, found.weights = (
        both and (first.magnitude or second.magnitude),
        both and (first.weights or second.weights),
    )
    found.gated = first.gated or second.gated
    return result


@records("sub.Tensor sub.Scalar")
def subtract(tape: Tape, func: Any, one: Operand, two: Operand, alpha: Operand = 1) -> Tensor:
    """A difference: a sum with the negated second term."""
    value = func(one, two, alpha=alpha)
    if alpha != 1 or is_whole(value):
        return add(tape, func, one, two, -alpha, value=value)
    if tape.find(two) is None:
        return add(tape, func, one, -two, value=value)
    if isinstance(one, Tensor) and value.shape == one.shape and (dims := averaged(tape, one, two)) is not None:
        return tape.stand_in(value, centred(tape, func, one, dims))
    return add(tape, func, one, negate(tape, aten.neg.default, two), value=value)


@records("rsub.Tensor rsub.Scalar")
def reverse_subtract(tape: Tape, func: Any, one: Operand, two: Operand, alpha: Operand = 1) -> Tensor:
    """A difference with swapped terms: other - input."""
    value = func(one, two, alpha=alpha)
    if alpha != 1 and not is_whole(value):
        one = tape.record(aten.mul.Scalar, (one, alpha), {})
    if is_whole(value):
        return add(tape, func, one, two, value=value)
    negated = -one if tape.find(one) is None else negate(tape, aten.neg.default, one)
    return add(tape, func, negated, two, value=value)


@records("mul.Tensor mul.Scalar")
def multiply(tape: Tape, func: Any, one: Operand, two: Operand) -> Tensor:
    """A gated signal, or a tensor scaled by a constant."""
    value = func(one, two)
    if is_whole(value):
        return whole_numbers(tape, func, one, two, value=value)
    first, second = tape.find(one), tape.find(two)
    if first is None or second is None:
        node, constant = (second, one) if first is None else (first, two)
        assert node is not None  # one of them depends on the input
        signal = two if first is None else one
        if value.dtype == signal.dtype and rectifies(tape, signal, constant):
            return tape.record(aten.relu.default, (signal,), {})
        if node.gate and not node.magnitude and is_zero(constant):
            return value  # of a start state of zeros: a constant
        return scaled(tape, value, node, constant, None)
    if first.gate and second.gate and first.magnitude == second.magnitude and first.first is not second.first:
        return product_of_gates(tape, func, value, (first, one), (second, two), func)
    if first.first is second.first:  # a square is an activation
        made = Node(PASS, (first,), value, nonnegative=True, gate=first.gate)
        made.magnitude = first.magnitude
        return tape.note(value, made)
    if not first.gate and not second.gate:
        if first.shape == second.shape and (source := written_out(first, second)) is not None:
            return tape.note(value, Node(PASS, (source,), value))
        if (constant := are_detached(first)) is not are_detached(second):
            node, factor = (second, one) if constant else (first, two)
            return scaled(tape, value, node, held(factor), None)
        return product_of_signals(tape, func, value, (first, one), (second, two), func)
    second_signals = first.gate and not (second.gate and first.magnitude)
    node, gate, known = (second, one, first) if second_signals else (first, two, second)
    known.logits = None
    return gated(tape, value, node, known, held(gate))


def gated(tape: Tape, value: Tensor, node: Node, gate: Node, factor: Tensor, divided: bool = False) -> Tensor:
    """Record a node's value times a factor: the value of a gate, or if it is `divided`, 1 / gate."""
    nonnegative = gate.nonnegative
    alike = node.shape == gate.shape and nonnegative and not node.gated and not node.gate
    if alike and (source := written_out(gate, node, divided)) is not None:
        return tape.note(value, Node(PASS, (source,), value))  # x * sigmoid(x), x / (1 + exp(-x))
    is_sum = node.rule is not None or node.others is not None
    if node.gated and is_sum and tape.composite.memory == "per_step":
        tape.note(value, Node(PASS, (node,), value, nonnegative=node.nonnegative and nonnegative))
    else:
        scaled(tape, value, node, factor, True if nonnegative else None)
    tape.node(value).mark_gated()
    return value


@records("div.Tensor div.Scalar")
def divide(tape: Tape, func: Any, one: Operand, two: Operand) -> Tensor:
    """A tensor divided by a constant, or by a gate (a standard deviation)."""
    value = func(one, two)
    first, second = tape.find(one), tape.find(two)
    if second is None:
        assert first is not None  # one of them depends on the input
        return scaled(tape, value, first, 1 / two, None)
    if not second.gate and (first is None or tape.composite.products in ("refuse", "right")):
        advice = (
            "Only division by a constant or by a scale (such as a norm) has a rule. To treat the divisor of a "
            'signal as a constant: Composite(..., products="left") or "half".'
        )
        return tape.refused(func, value, advice, one, two)
    if first is None:
        if is_zero(one):
            return value
        refusal = refused_as_signal(tape)
        lost = second.lost or not is_number(one)
        return tape.gate_of(
            value, second, nonnegative=never_negative(value), lost=lost, refusal=refusal, func=func, entrywise=True
        )
    if first.gate and second.gate and first.logits is not None:  # exp(z) / sum(exp(z))
        made = softmax_written_out(tape, value, first.logits)
        if made is not None:
            return made
    if first.gate and not first.magnitude:
        nodes = (first, second) if tape.composite.products in ("refuse", "right") else (first,)
        positive = first.nonnegative and second.nonnegative
        return tape.gate_of(value, *nodes, nonnegative=positive, entrywise=len(nodes) > 1)
    return gated(tape, value, first, second, 1 / held(two), divided=True)


@records("neg.default _neg_view.default")
def negate(tape: Tape, func: Any, tensor: Tensor) -> Tensor:
    """Multiplication by -1."""
    value = func(tensor)
    node = tape.node(tensor)
    return scaled(tape, value, node, -1.0, False)


@records("abs.default")
def absolute(tape: Tape, func: Any, tensor: Tensor) -> Tensor:
    """An absolute value is multiplication by the sign, a constant; as a scale, it gets no relevance."""
    value = func(tensor)
    node = tape.node(tensor)
    scaled(tape, value, node, held(tensor.sign().masked_fill(tensor == 0, 1)), None)
    made = tape.node(value)
    made.gate = made.magnitude = made.nonnegative = True
    return value


@records("addcmul.default")
def add_product(tape: Tape, func: Any, base: Tensor, one: Tensor, two: Tensor, *, value: Operand = 1) -> Tensor:
    """Input + value * tensor1 * tensor2."""
    product = tape.record(aten.mul.Tensor, (one, two), {})
    return tape.record(aten.add.Tensor, (base, product), {"alpha": value})


@records("addcdiv.default")
def add_quotient(tape: Tape, func: Any, base: Tensor, one: Tensor, two: Tensor, *, value: Operand = 1) -> Tensor:
    """Input + value * tensor1 / tensor2."""
    quotient = tape.record(aten.div.Tensor, (one, two), {})
    return tape.record(aten.add.Tensor, (base, quotient), {"alpha": value})


@records("deg2rad.default rad2deg.default")
def in_another_unit(tape: Tape, func: Any, tensor: Tensor) -> Tensor:
    """Multiplication by a number."""
    return tape.record(aten.mul.Scalar, (tensor, float(func(torch.ones((), dtype=torch.float64)))), {})


@records("lerp.Tensor lerp.Scalar")
def interpolate(tape: Tape, func: Any, start: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """(1 - weight) * start + weight * end."""
    rest = tape.record(aten.rsub.Scalar, (weight, 1), {}) if isinstance(weight, Tensor) else 1 - weight
    left = tape.record(aten.mul.Tensor, (start, rest), {})
    return tape.record(aten.add.Tensor, (left, tape.record(aten.mul.Tensor, (end, weight), {})), {})


@records("pow.Tensor_Scalar")
def power(tape: Tape, func: Any, tensor: Tensor, exponent: float) -> Tensor:
    """A power by a number is an activation; of a gate, or with an exponent below 1, it is a scale."""
    node = tape.node(tensor)
    value = func(tensor, exponent)
    if exponent == 1:
        return tape.record(aten.mul.Scalar, (tensor, 1), {})
    if node.gate and not node.magnitude:
        return tape.gate_of(value, node, entrywise=True)
    if exponent <= 0:
        refusal = refused_as_signal(tape)
        positive = never_negative(value)
        return tape.gate_of(value, node, nonnegative=positive, refusal=refusal, func=func, entrywise=True)
    positive = exponent % 2 == 0 or exponent < 1 or (node.nonnegative and node.pixels is None)
    made = Node(PASS, (node,), value, nonnegative=positive, gate=exponent < 1 or node.gate)
    made.magnitude = made.gate
    return tape.note(value, made)


@records("pow.Tensor_Tensor")
def power_of_tensor(tape: Tape, func: Any, tensor: Tensor, exponent: Tensor) -> Tensor:
    """A power by a tensor, which gets no relevance; of a constant by a gate, it is a gate."""
    node, above = tape.find(tensor), tape.find(exponent)
    if above is None and exponent.numel() == 1:
        return tape.record(aten.pow.Tensor_Scalar, (tensor, exponent.item()), {})
    value = func(tensor, exponent)
    if node is None and above is not None and above.gate and value.shape == exponent.shape:
        refusal = refused_as_signal(tape)
        return tape.gate_of(value, above, nonnegative=never_negative(value), refusal=refusal, func=func)
    if node is None or (above is not None and not above.gate) or value.shape != tensor.shape:
        advice = "Its exponents must be constants, or scales (the output of a sigmoid or softplus)."
        return tape.refused(func, value, advice, tensor, exponent)
    if node.gate and not node.magnitude:
        return tape.gate_of(value, node)
    low = bool((exponent <= 0).any())
    if low:
        refusal = refused_as_signal(tape)
        return tape.gate_of(value, node, nonnegative=never_negative(value), refusal=refusal, func=func)
    made = Node(PASS, (node,), value, nonnegative=node.nonnegative and node.pixels is None, gate=node.gate)
    made.magnitude = node.magnitude
    return tape.note(value, made)


SCALES.update((power, power_of_tensor))


def is_whole(value: Tensor) -> bool:
    """Tokens are whole numbers."""
    return not (value.is_floating_point() or value.is_complex())


def plus_constant(
    tape: Tape, value: Tensor, node: Node, tensor: Tensor, constant: Operand, bias: bool = False
) -> Tensor:
    """Record a value that depends on the input, plus a constant; `bias`: the constant is a bias."""
    if is_whole(tensor):
        tensor = tape.record(aten._to_copy.default, (tensor,), {"dtype": value.dtype})
        node = tape.node(tensor)
    if isinstance(constant, int | float) and constant == 0:  # where Python's sum() begins
        return tape.move(value, node, UNMOVED)
    if node.gate and isinstance(constant, int | float) and (own := at_zero(node)) is not None:
        return of_argument(tape, value, node, own + constant)
    layer = node.gate and node.rule is not None and not is_number(constant)  # a sum of gates, plus a bias
    if node.magnitude or layer:
        tape.add_constant(value, node, tensor, constant, bias)
        made = tape.node(value)
        made.gate, made.magnitude = True, node.magnitude
        made.nonnegative = never_negative(value)
        return value
    if node.gate:  # 1 - gate stays a gate
        return tape.gate_of(value, node, nonnegative=never_negative(value), entrywise=True)
    if tape.composite.softmax == "signal" and isinstance(constant, Tensor):
        gone = constant == -torch.inf  # a mask of attention, which leaves no scores
        if bool(gone.any()):
            finite = constant.masked_fill(gone, 0)
            rest = tape.record(aten.add.Tensor, (tensor, finite), {}) if bool(finite.any()) else tensor
            return tape.stand_in(value, tape.record(aten.masked_fill.Scalar, (rest, gone, -torch.inf), {}))
    if node.call is CANCELLED:
        (source,) = node.sources
        assert source is not None  # else there would be no node
        return stands_for(tape, value, source)
    if node.pixels is not None and node.rule is None:
        if isinstance(constant, Tensor) and constant.shape == value.shape and is_zero(constant):  # a start state
            return tape.move(value, node, UNMOVED)
        # Scaled and shifted pixels are still pixels: normalising the input gets no relevance.
        pixels = node.pixels.affine(1.0, constant if isinstance(constant, Tensor) else float(constant))
        return tape.note(value, Node(PASS, (node,), value, pixels=pixels))
    return tape.add_constant(value, node, tensor, constant, bias)


def scaled(tape: Tape, value: Tensor, node: Node, factor: Operand, nonnegative: bool | None) -> Tensor:
    """Record a node's value times a factor, which gets no relevance.

    Args:
        tape: the tape.
        value: the product.
        node: the node of what is scaled.
        factor: a number, a constant tensor, or the value of a gate.
        nonnegative: whether the factor is >= 0; None: look at it.
    """
    if node.gate and (not node.magnitude or node.reason is not None):
        positive = node.nonnegative and never_negative(factor)
        lost = node.lost or not (is_number(factor) or node.magnitude)
        tape.gate_of(value, node, lost=lost, nonnegative=positive, entrywise=True)
        if isinstance(factor, int | float) and (own := at_zero(node)) is not None:
            tape.node(value).at_zero = own * factor
        return value
    if nonnegative is None:
        nonnegative = never_negative(factor)
    if node.pixels is not None and node.rule is None and node.others is None:
        return scaled_pixels(tape, value, node, factor, nonnegative)
    if node.rule is not None:
        new = tape.scaled_sum(node, factor, nonnegative, value)
        new.gate = node.gate
        tape.sum_of(new, node.rule, value, node.by_value)
    else:
        new = Node(PASS, (node,), value, Scaling(factor, nonnegative, False), gate=node.gate)
        new.others = () if node.others is not None else None
        if node.pixels is not None:
            new.pixels = node.pixels.affine(factor if isinstance(factor, Tensor) else float(factor), 0.0)
    new.nonnegative, new.magnitude = node.nonnegative and nonnegative, node.magnitude
    if node.gated:
        new.mark_gated()
    return tape.note(value, new)


def scaled_pixels(tape: Tape, value: Tensor, node: Node, factor: Operand, nonnegative: bool) -> Tensor:
    """Record pixels times a factor. 0 times a pixel is padding: what is added to it later is no pixel."""
    kept = torch.as_tensor(factor, device=value.device).detach() != 0
    if bool(kept.all()):
        same = Node(PASS, (node,), value, Scaling(1.0, nonnegative, False), pixels=node.pixels)
        same.present = None if node.present is None else node.present.expand(value.shape)
        tape.note(value, same)
    else:
        only = Movement(lambda part: part * kept, lambda part: (part * kept).sum_to_size(node.shape))
        tape.move(value, node, only, padding=True)
    new = tape.node(value)
    if new.pixels is not None:
        new.pixels = new.pixels.affine(factor if isinstance(factor, Tensor) else float(factor), 0.0)
    new.nonnegative = node.nonnegative and nonnegative
    return value
