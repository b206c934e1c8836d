"""All operations that have a rule; `register` adds one."""

from rnnx_lightning.explain.operations import (
    activations,
    arithmetic,
    complex_numbers,
    gates,
    linear_maps,
    norms,
    scatters,
    shapes,
    tokens,
    writes,
)
from rnnx_lightning.explain.operations.activations import activation
from rnnx_lightning.explain.operations.gates import gate
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
    "gates",
    "linear_maps",
    "moving",
    "norms",
    "register",
    "scatters",
    "shapes",
    "tokens",
    "writes",
]
