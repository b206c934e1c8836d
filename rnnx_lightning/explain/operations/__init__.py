"""All operations that have a rule; `register` adds one."""

from rnnx_lightning.explain.operations import (
    activations,
    arithmetic,
    complex_numbers,
    linear_maps,
    norms,
    scatters,
    shapes,
    tokens,
    writes,
)
from rnnx_lightning.explain.operations.activations import activation, gate
from rnnx_lightning.explain.operations.shapes import by_gradient, moving
from rnnx_lightning.explain.operations.table import ADVICE, HARMLESS, SCALES, TABLE, register

__all__ = [
    "ADVICE",
    "HARMLESS",
    "SCALES",
    "TABLE",
    "activation",
    "activations",
    "arithmetic",
    "by_gradient",
    "complex_numbers",
    "gate",
    "linear_maps",
    "moving",
    "norms",
    "register",
    "scatters",
    "shapes",
    "tokens",
    "writes",
]
