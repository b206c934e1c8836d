"""How each kind of operation treats relevance."""

from rnnx_lightning.explain.rows.derivatives import Half, Softmax, SoftMaximum, Vjp, transposed
from rnnx_lightning.explain.rows.linear_map import Constant, Linear, Map, MapCall, forget_value
from rnnx_lightning.explain.rows.moves import DETACHED, UNMOVED, Join, Joining, Move, Movement
from rnnx_lightning.explain.rows.row import Embedding, Leaf, Opaque, Part, Pass, Relu, Row
from rnnx_lightning.explain.rows.sums import Scale, Scaling, Sum

LEAF, PASS, RELU, OPAQUE, EMBEDDING = Leaf(), Pass(), Relu(), Opaque(), Embedding()
LINEAR, CONSTANT = Linear(), Constant()
SUM, SCALE, MOVE, JOIN = Sum(), Scale(), Move(), Join()
VJP, SOFT_MAXIMUM, HALF, SOFTMAX = Vjp(), SoftMaximum(), Half(), Softmax()

__all__ = [
    "CONSTANT",
    "DETACHED",
    "EMBEDDING",
    "HALF",
    "JOIN",
    "LEAF",
    "LINEAR",
    "MOVE",
    "OPAQUE",
    "PASS",
    "RELU",
    "SCALE", "SOFTMAX", "SOFT_MAXIMUM",
    "SUM",
    "UNMOVED",
    "VJP",
    "Joining",
    "Map",
    "MapCall",
    "Movement",
    "Part",
    "Pass",
    "Row",
    "Scaling",
    "Sum",
    "forget_value", "transposed",
]  # fmt: skip
