"""Complex numbers are pairs of real ones: a complex tensor that depends on the input has a real one (..., 2)."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import OPAQUE

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape

aten = torch.ops.aten
NO_RULE = "A complex number is used where only real ones have a rule. Write it with its real and imaginary part."


def is_complex(value: Any) -> bool:
    """Whether a tensor or a number is complex."""
    return value.is_complex() if isinstance(value, Tensor) else isinstance(value, complex)


def paired(tape: "Tape", value: Tensor, pair: Tensor) -> Tensor:
    """Record a complex value that depends on the input, with its real and imaginary parts (..., 2)."""
    node = Node(OPAQUE, (), value)
    node.pair, node.reason = pair, NO_RULE
    return tape.note(value, node)


def pair_of(tape: "Tape", value: Tensor) -> Tensor:
    """The pair of a complex tensor, or of a real one; a constant's is a constant."""
    node = tape.find(value)
    if node is None:
        whole = value if value.is_complex() else torch.complex(value, torch.zeros_like(value))
        return torch.view_as_real(whole.resolve_conj())
    if node.pair is not None:
        return node.pair
    return tape.record(aten.stack.default, ([value, torch.zeros_like(value)], -1), {})


def part_of(tape: "Tape", value: Any, part: int) -> Any:
    """The real (0) or the imaginary part (1) of what may be complex, a tensor or a number, or a list of such."""
    if isinstance(value, list | tuple):
        return type(value)(part_of(tape, each, part) for each in value)
    if isinstance(value, complex):
        return (value.real, value.imag)[part]
    if isinstance(value, Tensor) and value.is_floating_point():  # among complex ones
        return torch.zeros_like(value) if part else value
    if not isinstance(value, Tensor) or not value.is_complex():
        return value
    return tape.record(aten.select.int, (pair_of(tape, value), -1, part), {})


def geometry_of_pair(size: Any, stride: Any, offset: int) -> tuple[Any, Any, int]:
    """Where in memory the pairs of a view of complex numbers lie."""
    return (*size, 2), (*(2 * step for step in stride), 1), 2 * offset
