"""Functions that scale signals, and get no relevance when they do: sigmoid, softmax, exp, log, 1 / x, ..."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch

from rnnx_lightning.explain.elementwise import never_negative
from rnnx_lightning.explain.linear import IDENTITY, held
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.table import SCALES, aten, records, register
from rnnx_lightning.explain.refusals import AS_WEIGHTS
from rnnx_lightning.explain.rows import LINEAR, MOVE, PASS, SOFT_MAXIMUM, SOFTMAX, SUM, VJP, Row, Scaling
from rnnx_lightning.explain.tape import Recorder, Tape

AS_SIGNAL = "It can scale a signal, but has no rule as a signal"
Refusal = str | None | Callable[[Tape], str | None]


def refused_as_signal(tape: Tape) -> str | None:
    """Why a function with f(0) != 0 is refused as a signal; None if the composite has it pass relevance on."""
    if tape.composite.functions == "identity":
        return None
    return (
        f"{AS_SIGNAL}, because f(0) is not 0. To pass relevance on unchanged, as an activation does: "
        'Composite(..., functions="identity").'
    )


def gate(
    as_signal: Refusal,
    squashes: bool = False,
    nonnegative: bool | None = True,
    vanishes: bool = False,
    entrywise: bool = True,
    at_zero: float | None = None,
) -> Recorder:
    """A recorder for a function that scales signals, and gets no relevance when it does.

    Args:
        as_signal: the reason why it is refused as a signal; None: as a signal, it passes relevance unchanged.
            `refused_as_signal`: the composite chooses.
        squashes: at the output of a network, it is skipped.
        nonnegative: its values are >= 0; None: that depends on the argument.
        vanishes: it is 0 at 0: a magnitude, as an absolute value is, unless it is a function of a gate.
        entrywise: each entry is a function of one entry.
        at_zero: its value at 0, if an activation may be written with it.
    """

    def record(tape: Tape, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        value = func(tensor, *args, **kwargs)
        node = tape.find(tensor)
        if node is None:
            return tape.refused(func, value, "Only its first argument may depend on the input.", *args)
        refusal = as_signal(tape) if callable(as_signal) else as_signal
        sign = never_negative(value) if nonnegative is None else nonnegative
        tape.gate_of(value, node, nonnegative=sign, refusal=refusal, func=func, entrywise=entrywise)
        made = tape.node(value)
        made.magnitude, made.at_zero = vanishes and (node.magnitude or not node.gate), at_zero
        if squashes:
            made.logits = tensor
            if func is aten.exp.default and not node.nonnegative and (logits := logits_of(tape, node)) is not None:
                made.logits = logits  # the exp of a log-softmax is a softmax
                if tape.composite.softmax == "signal":
                    weights = softmax_written_out(tape, value, logits)
                    return value if weights is None else weights
        return value

    SCALES.add(record)
    as_one = "passes relevance unchanged" if as_signal is None else "is refused"
    if callable(as_signal):
        as_one += ', unless `functions="identity"`'
    record.__doc__ = f"Gets no relevance when it scales a signal; as a signal, it {as_one}."
    return record


def softmax_written_out(tape: Tape, value: Tensor, z: Tensor) -> Tensor | None:
    """Record a value that is the softmax of another along some dimension; None if it is not."""
    if tape.find(z) is None:
        return None
    for dim, length in enumerate(value.shape):
        if length > 1 and torch.allclose(held(z).softmax(dim), held(value)):
            shifted = logits_of(tape, tape.node(z), VJP)  # z - max(z), so that exp does not overflow
            made = tape.record(aten._softmax.default, (z if shifted is None else shifted, dim, False), {})
            return tape.stand_in(value, made)
    return None


def logits_of(tape: Tape, node: Node, of: Row = SOFT_MAXIMUM) -> Tensor | None:
    """The argument z of a sigmoid or softmax, or of a log-softmax that is written as z - logsumexp(z).

    Args:
        tape: the tape.
        node: the node of the value.
        of: the row of the logsumexp, or of a maximum in its place.
    """
    terms = [source for source in node.sources if source is not None] if node.row is SUM else []
    for one, two in (terms, terms[::-1]) if node.logits is None and len(terms) == 2 else ():
        total, factor = two, 1.0
        while total.row in (LINEAR, MOVE, PASS) and (source := total.sources[0]) is not None:
            own = total.call.factor if isinstance(total.call, Scaling) else 1.0
            total, factor = source, factor * own if isinstance(own, int | float) else 0.0
        if total.row is of and factor == -1 and _value_of(one) is total.sources[0]:
            with no_dispatch():  # the network may have overwritten the value itself
                logits: Tensor = total.call[1].clone()
            tape.mark(logits, total.sources[0])
            return logits
    return node.logits


def _value_of(term: Node) -> Node | None:
    """A term of a sum as it was before it was one."""
    of_one = term.row is LINEAR and term.call.maps[0].layer.operation is IDENTITY
    return term.sources[0] if of_one else term


for _operation in (aten.sigmoid.default, aten.hardsigmoid.default):
    register(_operation, gate(None, squashes=True, at_zero=0.5))
register(aten.softplus.default, gate(None))
register(aten.sqrt.default, gate(None, vanishes=True))
register(aten.log1p.default, gate(None, nonnegative=None, vanishes=True))
for _operation in (aten.sign.default, aten.sgn.default):
    register(_operation, gate(None, nonnegative=False))
register(aten.exp.default, gate(refused_as_signal, squashes=True, at_zero=1.0))
for _name in ("exp2", "cosh", "acos", "acosh", "erfc"):
    register(getattr(aten, _name).default, gate(refused_as_signal))
register(aten.cos.default, gate(refused_as_signal, nonnegative=False))
register(
    aten.logcumsumexp.default,
    gate(
        f"{AS_SIGNAL}. In a scan of logarithms, gates and signals are terms of one sum: write it as a loop over "
        "time steps, h = a * h + b.",
        nonnegative=False,
        entrywise=False,
    ),
)
for _operation in (aten.cumprod.default, aten.affine_grid_generator.default):
    register(_operation, gate(f"{AS_SIGNAL}.", nonnegative=False, entrywise=False))
register(aten._log_softmax.default, gate(AS_WEIGHTS, squashes=True, nonnegative=False, entrywise=False))


@records("pow.Scalar")
def power_of_number(tape: Tape, func: Any, base: float, exponent: Tensor) -> Tensor:
    """Gets no relevance when it scales a signal; as a signal, it is refused, unless `functions="identity"`."""
    value, refusal = func(base, exponent), refused_as_signal(tape)
    return tape.gate_of(value, tape.node(exponent), nonnegative=base >= 0, refusal=refusal, func=func)


@records("prod.default prod.dim_int")
def product(tape: Tape, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The product of all gates along a dimension is a gate."""
    value, node = func(tensor, *args, **kwargs), tape.node(tensor)
    if not node.gate or node.magnitude:
        return tape.refused(func, value, "Only a product of gates (outputs of a sigmoid) has one.", tensor)
    return tape.gate_of(value, node, nonnegative=node.nonnegative, refusal=f"{AS_SIGNAL}.", func=func)


SCALES.add(product)
weighs = gate(AS_WEIGHTS, squashes=True, entrywise=False)


@records("_softmax.default _safe_softmax.default")
def softmax(tape: Tape, func: Any, tensor: Tensor, dim: int, *args: Any, **kwargs: Any) -> Tensor:
    """Attention weights, which get no relevance; with `softmax="signal"`, a signal (AttnLRP)."""
    node = tape.find(tensor)
    if node is None or tape.composite.softmax == "constant":
        value = weighs(tape, func, tensor, dim, *args, **kwargs)
        tape.node(value).weights = True
        return value
    value = func(tensor, dim, *args, **kwargs)
    if tape.has_no_way_back(tensor):
        return tape.refused(func, value, "", tensor)
    made = Node(SOFTMAX, (node,), value, (held(tensor), held(value), dim), nonnegative=True)
    made.logits = tensor
    return tape.note(value, made)


def of_gate(tape: Tape, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """No relevance if its argument is a scale, or if it scales a signal; else refused, unless "identity"."""
    value = func(tensor, *args, **kwargs)
    node = tape.find(tensor)
    if node is None:
        return tape.refused(func, value, "Only its first argument may depend on the input.", *args)
    positive = func is aten.rsqrt.default or never_negative(value)
    tape.gate_of(value, node, nonnegative=positive, refusal=refused_as_signal(tape), func=func, entrywise=True)
    made = tape.node(value)
    made.magnitude = False
    if func is aten.reciprocal.default and node.at_zero:
        made.at_zero = 1 / node.at_zero
    if func is aten.log.default and node.logits is not None:
        made.logits = node.logits
    return value


for _operation in (
    aten.rsqrt.default,
    aten.reciprocal.default,
    aten.log.default,
    aten.log2.default,
    aten.log10.default,
):
    register(_operation, of_gate)


@records("log_sigmoid_forward.default")
def log_sigmoid(tape: Tape, func: Any, tensor: Tensor) -> Any:
    """A log-sigmoid is skipped at the output of a network; as a signal, it passes relevance unchanged."""
    value = func(tensor)
    tape.gate_of(value[0], tape.node(tensor), nonnegative=False)
    made = tape.node(value[0])
    made.logits = tensor
    return value


SCALES.update((softmax, of_gate, log_sigmoid, power_of_number))


@records("glu.default")
def gated_linear_unit(tape: Tape, func: Any, tensor: Tensor, dim: int = -1) -> Tensor:
    """The first half, gated by the second."""
    half = tensor.shape[dim] // 2
    signal, gates = tape.record(aten.split.Tensor, (tensor, half, dim), {})
    return tape.record(aten.mul.Tensor, (signal, tape.record(aten.sigmoid.default, (gates,), {})), {})
