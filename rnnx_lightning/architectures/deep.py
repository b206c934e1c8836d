"""The Deep family: an input part, a two-layer ReLU recurrence, and an output part (thesis, section 2)."""

from torch import nn

from rnnx_lightning.architectures.base import CellNetwork
from rnnx_lightning.architectures.cells import DeepCell
from rnnx_lightning.architectures.fronts import conv_front, linear_front
from rnnx_lightning.architectures.layers import SequenceDropout, bias_free_linear, check_columns


class _DeepFamily(CellNetwork):
    """Front, dropout, deep cell, output."""

    cell: DeepCell

    def __init__(
        self,
        columns: int,
        front: nn.Module,
        features: int,
        hidden: int,
        recurrent: int,
        output: nn.Module,
        dropout: float,
        stationary: bool,
    ) -> None:
        drop = SequenceDropout(dropout, stationary, times=2)  # as the front's output and the cell's input
        cell = DeepCell(features, hidden, recurrent, dropout, stationary)
        super().__init__(columns, front, drop, cell, output)


def _head(hidden: int, head: int, classes: int) -> nn.Sequential:
    return nn.Sequential(bias_free_linear(hidden, head), nn.ReLU(), bias_free_linear(head, classes))


class Shallow(CellNetwork):
    """The pixels go straight into the recurrence. 183,808 parameters with the published sizes.

    Args:
        columns: pixel columns a time step.
        hidden: width of h_t.
        recurrent: width of r_t.
        classes: number of logits.
        dropout: probability of dropping a unit (published: 0.2).
        stationary_dropout: hold the dropout masks over all steps of a sequence.
    """

    def __init__(
        self,
        columns: int = 7,
        hidden: int = 256,
        recurrent: int = 256,
        classes: int = 10,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
    ) -> None:
        check_columns(columns)
        drop = SequenceDropout(dropout, stationary_dropout)
        cell = DeepCell(28 * columns, hidden, recurrent, dropout, stationary_dropout)
        super().__init__(columns, nn.Flatten(), drop, cell, bias_free_linear(hidden, classes))


class Deep(_DeepFamily):
    """One layer on each step, then the deep recurrence. 152,896 parameters with the published sizes.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        hidden: width of h_t.
        recurrent: width of r_t.
        head: width of the output part's hidden layer.
        classes: number of logits.
        dropout: probability of dropping a unit (published: 0.2).
        stationary_dropout: hold the dropout masks over all steps of a sequence.
    """

    def __init__(
        self,
        columns: int = 7,
        features: int = 256,
        hidden: int = 128,
        recurrent: int = 256,
        head: int = 32,
        classes: int = 10,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
    ) -> None:
        front = linear_front(28, columns, features)
        output = _head(hidden, head, classes)
        super().__init__(columns, front, features, hidden, recurrent, output, dropout, stationary_dropout)


class DeepV2(_DeepFamily):
    """As `Deep`, with two layers on each step. 160,576 parameters with the published sizes.

    Args:
        columns: pixel columns a time step.
        first: width of the input part's first layer.
        features: width of its second.
        hidden: width of h_t.
        recurrent: width of r_t.
        head: width of the output part's hidden layer.
        classes: number of logits.
        dropout: probability of dropping a unit (published: 0.2).
        stationary_dropout: hold the dropout masks over all steps of a sequence.
    """

    def __init__(
        self,
        columns: int = 7,
        first: int = 128,
        features: int = 256,
        hidden: int = 128,
        recurrent: int = 256,
        head: int = 32,
        classes: int = 10,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
    ) -> None:
        front = linear_front(28, columns, first, features)
        output = _head(hidden, head, classes)
        super().__init__(columns, front, features, hidden, recurrent, output, dropout, stationary_dropout)


class ConvDeep(_DeepFamily):
    """Two convolutions on each step, then the deep recurrence. 151,192 parameters with the published sizes.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        hidden: width of h_t.
        recurrent: width of r_t.
        head: width of the output part's hidden layer.
        classes: number of logits.
        dropout: probability of dropping a unit (published: 0.2).
        stationary_dropout: hold the dropout masks over all steps of a sequence.
    """

    def __init__(
        self,
        columns: int = 7,
        features: int = 128,
        hidden: int = 128,
        recurrent: int = 256,
        head: int = 32,
        classes: int = 10,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
    ) -> None:
        front = conv_front(28, columns, features)
        output = _head(hidden, head, classes)
        super().__init__(columns, front, features, hidden, recurrent, output, dropout, stationary_dropout)
