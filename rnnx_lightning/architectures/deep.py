"""The Deep family: an input part, a two-layer ReLU recurrence, and a two-layer output (thesis, section 2)."""

from torch import Tensor, nn

from rnnx_lightning.architectures.base import RecurrentNetwork
from rnnx_lightning.architectures.fronts import conv_front
from rnnx_lightning.architectures.layers import SequenceDropout, bias_free_linear


class DeepCell(nn.Module):
    """h_t = ReLU(W [i_t, r_{t-1}]), r_t = ReLU(W_r h_t), with r_0 = 0.

    W is kept as its two parts, one for i_t and one for r_{t-1}, so that the first is applied to all steps in
    one product.

    Args:
        inputs: width of i_t.
        hidden: width of h_t.
        recurrent: width of r_t.
        dropout: probability of dropping a unit of the cell's input and of h_t.
        stationary: hold the dropout masks over all steps of a sequence.
    """

    def __init__(
        self, inputs: int, hidden: int, recurrent: int, dropout: float = 0.2, stationary: bool = False
    ) -> None:
        super().__init__()
        self.from_input = bias_free_linear(inputs, hidden, fan_in=inputs + recurrent)
        self.from_recurrent = bias_free_linear(recurrent, hidden, fan_in=inputs + recurrent)
        self.to_recurrent = bias_free_linear(hidden, recurrent)
        self.hidden = nn.ReLU()
        self.recurrent = nn.ReLU()
        self.dropout = SequenceDropout(dropout, stationary)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, inputs) to (B, hidden): h after the last step."""
        steps = features.shape[1]
        driven = self.from_input(self.dropout(features)).unbind(1)
        drop_recurrent = self.dropout.masks(features, steps, self.to_recurrent.out_features)
        drop_hidden = self.dropout.masks(features, steps, self.to_recurrent.in_features)
        hidden = features.new_zeros(())
        for step, drive in enumerate(driven):
            if step > 0:
                recurrent = self.recurrent(self.to_recurrent(hidden))
                if drop_recurrent is not None:
                    recurrent = recurrent * drop_recurrent[step]
                drive = drive + self.from_recurrent(recurrent)
            hidden = self.hidden(drive)
            if drop_hidden is not None:
                hidden = hidden * drop_hidden[step]
        return hidden


class ConvDeep(RecurrentNetwork):
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
        dropout: float = 0.2,
        stationary_dropout: bool = False,
    ) -> None:
        super().__init__(columns)
        self.front = conv_front(self.rows, columns, features)
        self.dropout = SequenceDropout(dropout, stationary_dropout)
        self.cell = DeepCell(features, hidden, recurrent, dropout, stationary_dropout)
        self.output = nn.Sequential(bias_free_linear(hidden, head), nn.ReLU(), bias_free_linear(head, classes))

    def encode(self, steps: Tensor) -> Tensor:
        """(N, 1, 28, columns) to (N, features)."""
        return self.front(steps)

    def decide(self, features: Tensor) -> Tensor:
        """(B, T, features) to (B, classes)."""
        return self.output(self.cell(self.dropout(features)))
