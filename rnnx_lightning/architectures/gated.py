"""The LSTM family: an input part, a gated cell, and a linear output [Cho18]."""

from typing import Any

from torch import Tensor

from rnnx_lightning.architectures.base import CellNetwork
from rnnx_lightning.architectures.cells import GRUCell, LSTMCell
from rnnx_lightning.architectures.fronts import conv_front, linear_front
from rnnx_lightning.architectures.layers import SequenceDropout, bias_free_linear, check_sizes


class GatedFamily(CellNetwork):
    """The base class of the LSTM family: an input part, dropout, a gated cell, and a linear output.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        units: width of the cell.
        classes: number of logits.
        dropout: probability of dropping a unit (published: 0.2).
        stationary_dropout: hold the dropout masks over all steps of a sequence.
        rows: height of the picture in pixels.
    """

    cell_class: type[LSTMCell | GRUCell] = LSTMCell
    convolutional = False
    tanh = False

    def __init__(
        self,
        columns: int = 7,
        features: int = 256,
        units: int = 72,
        classes: int = 10,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
        rows: int = 28,
    ) -> None:
        check_sizes(classes=classes)
        front = (conv_front if self.convolutional else linear_front)(rows, columns, features=features)
        drop = SequenceDropout(dropout, stationary_dropout)
        cell = self.cell_class(features, units, dropout, stationary_dropout, self.tanh)
        super().__init__(columns, front, drop, cell, bias_free_linear(units, classes), rows)

    def recur(self, driven: tuple[Tensor, Tensor]) -> Tensor:
        """What drives gates and candidate at each step to the hidden state after the last one, (B, units)."""
        result = self.cell(driven)
        outputs = result[0] if isinstance(result, tuple) else result
        return outputs[-1]


class RLSTM(GatedFamily):
    """LSTM with a ReLU candidate and no tanh on the cell output. 145,576 parameters with the published sizes."""


class ConvRLSTM(GatedFamily):
    """Two convolutions on each step, then an R-LSTM cell. 152,120 parameters with the published sizes.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        units: width of the cell.
        **options: as of `GatedFamily`.
    """

    convolutional = True

    def __init__(self, columns: int = 7, features: int = 128, units: int = 96, **options: Any) -> None:
        super().__init__(columns, features, units, **options)


class RGRU(GatedFamily):
    """GRU whose candidate is ReLU. 121,888 parameters with the sizes of `RLSTM`."""

    cell_class = GRUCell


class LSTM(GatedFamily):
    """Baseline with an ordinary tanh LSTM cell [HS97]. 145,648 parameters with the sizes of `RLSTM`."""

    tanh = True


class GRU(GatedFamily):
    """Baseline with an ordinary tanh GRU cell. 122,032 parameters with the sizes of `RLSTM`."""

    cell_class = GRUCell
    tanh = True
