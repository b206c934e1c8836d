"""The Deep family: an input part, a two-layer ReLU recurrence, and an output part [Cho18]."""

from typing import Any

from torch import nn

from rnnx_lightning.architectures.base import CellNetwork
from rnnx_lightning.architectures.cells import DeepCell
from rnnx_lightning.architectures.fronts import conv_front, linear_front
from rnnx_lightning.architectures.layers import SequenceDropout, bias_free_linear, check_sizes


class Shallow(CellNetwork):
    """The pixels go straight into the recurrence. 183,808 parameters with the published sizes.

    Args:
        columns: pixel columns a time step.
        hidden: width of h_t.
        recurrent: width of r_t.
        classes: number of logits.
        dropout: probability of dropping a unit (published: 0.2).
        stationary_dropout: hold the dropout masks over all steps of a sequence.
        rows: height of the picture in pixels.
    """

    def __init__(
        self,
        columns: int = 7,
        hidden: int = 256,
        recurrent: int = 256,
        classes: int = 10,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
        rows: int = 28,
    ) -> None:
        check_sizes(columns=columns, rows=rows, classes=classes)
        drop = SequenceDropout(dropout, stationary_dropout)
        cell = DeepCell(rows * columns, hidden, recurrent, dropout, stationary_dropout)
        super().__init__(columns, nn.Flatten(), drop, cell, bias_free_linear(hidden, classes), rows)


class DeepFamily(CellNetwork):
    """The base class of the Deep family: an input part, the deep recurrence, and an output part of two layers.

    Args:
        front: the input part, (N, 1, rows, columns) to (N, features).
        features: its width.
        columns: pixel columns a time step.
        hidden: width of h_t.
        recurrent: width of r_t.
        head: width of the output part's hidden layer.
        classes: number of logits.
        dropout: probability of dropping a unit (published: 0.2).
        stationary_dropout: hold the dropout masks over all steps of a sequence.
        rows: height of the picture in pixels.
    """

    cell: DeepCell

    def __init__(
        self,
        front: nn.Module,
        features: int,
        columns: int = 7,
        hidden: int = 128,
        recurrent: int = 256,
        head: int = 32,
        classes: int = 10,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
        rows: int = 28,
    ) -> None:
        check_sizes(hidden=hidden, head=head, classes=classes)
        output = nn.Sequential(bias_free_linear(hidden, head), nn.ReLU(), bias_free_linear(head, classes))
        drop = SequenceDropout(dropout, stationary_dropout, times=2)  # as the front's output and the cell's input
        cell = DeepCell(features, hidden, recurrent, dropout, stationary_dropout)
        super().__init__(columns, front, drop, cell, output, rows)


class Deep(DeepFamily):
    """One layer on each step, then the deep recurrence. 152,896 parameters with the published sizes.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        rows: height of the picture in pixels.
        **options: as of `DeepFamily`.
    """

    def __init__(self, columns: int = 7, features: int = 256, *, rows: int = 28, **options: Any) -> None:
        front = linear_front(rows, columns, features=features)
        super().__init__(front, features, columns=columns, rows=rows, **options)


class DeepV2(DeepFamily):
    """As `Deep`, with two layers on each step. 160,576 parameters with the published sizes.

    Args:
        columns: pixel columns a time step.
        first: width of the input part's first layer.
        features: width of its second.
        rows: height of the picture in pixels.
        **options: as of `DeepFamily`.
    """

    def __init__(
        self, columns: int = 7, first: int = 128, features: int = 256, *, rows: int = 28, **options: Any
    ) -> None:
        front = linear_front(rows, columns, first=first, features=features)
        super().__init__(front, features, columns=columns, rows=rows, **options)


class ConvDeep(DeepFamily):
    """Two convolutions on each step, then the deep recurrence. 151,192 parameters with the published sizes.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        rows: height of the picture in pixels.
        **options: as of `DeepFamily`.
    """

    def __init__(self, columns: int = 7, features: int = 128, *, rows: int = 28, **options: Any) -> None:
        front = conv_front(rows, columns, features)
        super().__init__(front, features, columns=columns, rows=rows, **options)
