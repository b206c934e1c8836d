"""Recurrent cells: the only part of a network that loops over time steps."""

import math

import torch
from torch import Tensor, nn

from rnnx_lightning.architectures.layers import SequenceDropout, bias_free_linear, check_sizes, gate_linear


class DeepCell(nn.Module):
    """h_t = ReLU(W [i_t, r_{t-1}]), r_t = ReLU(W_r h_t), with r_0 = 0.

    W is stored as two matrices, for i_t and for r_{t-1}, so that the first is applied to all steps in one product
    before the recurrence.

    Args:
        inputs: width of i_t.
        hidden: width of h_t.
        recurrent: width of r_t.
        dropout: probability of dropping a unit of r_{t-1} and of h_t; units of i_t are dropped before the cell.
        stationary: hold the dropout masks over all steps of a sequence.
    """

    def __init__(
        self, inputs: int, hidden: int, recurrent: int, dropout: float = 0.2, stationary: bool = False
    ) -> None:
        super().__init__()
        check_sizes(hidden=hidden, recurrent=recurrent)
        self.from_input = bias_free_linear(inputs, hidden, fan_in=inputs + recurrent)
        self.from_recurrent = bias_free_linear(recurrent, hidden, fan_in=inputs + recurrent)
        self.to_recurrent = bias_free_linear(hidden, recurrent)
        self.hidden = nn.ReLU()
        self.recurrent = nn.ReLU()
        self.dropout = SequenceDropout(dropout, stationary)

    def drive(self, features: Tensor) -> Tensor:
        """(..., inputs) to (..., hidden): the part of h_t's net input that comes from i_t."""
        return self.from_input(features)

    def forward(self, driven: Tensor) -> Tensor:
        """The results of `drive`, (B, T, hidden), to h after the last step, (B, hidden)."""
        steps = driven.shape[1]
        drop_recurrent = self.dropout.masks(driven, steps, self.to_recurrent.out_features)
        drop_hidden = self.dropout.masks(driven, steps, self.to_recurrent.in_features)
        hidden = driven.new_zeros(())
        for step, drive in enumerate(driven.unbind(1)):
            if step > 0:
                recurrent = self.recurrent(self.to_recurrent(hidden))
                if drop_recurrent is not None:
                    recurrent = recurrent * drop_recurrent[step]
                drive = drive + self.from_recurrent(recurrent)
            hidden = self.hidden(drive)
            if drop_hidden is not None:
                hidden = hidden * drop_hidden[step]
        return hidden


class _GatedCell(nn.Module):
    """The base class of gated cells: x_t contributes to the gates and to a candidate."""

    gates_input: nn.Linear
    candidate_input: nn.Linear

    def drive(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(..., inputs) to the parts of the net inputs that come from x_t: (..., gates * units), (..., units)."""
        return self.gates_input(features), self.candidate_input(features)


class LSTMCell(_GatedCell):
    """c_t = f c_{t-1} + i g_t, h_t = o c_t; g_t = ReLU(W_g [x_t, h_{t-1}]) and no tanh on c_t: the R-LSTM's cell.

    With `tanh`, the ordinary LSTM [HS97]: g_t = tanh(... + b_g), h_t = o tanh(c_t). The gates i, f, o are
    sigmoid(W [x_t, h_{t-1}] + b). They have their own layers, because they get no relevance.

    Args:
        inputs: width of x_t.
        units: width of c_t and h_t.
        dropout: probability of dropping a unit of h_t.
        stationary: hold the dropout mask over all steps of a sequence.
        tanh: see above.
    """

    def __init__(
        self, inputs: int, units: int, dropout: float = 0.0, stationary: bool = False, tanh: bool = False
    ) -> None:
        super().__init__()
        check_sizes(units=units)
        fan_in = inputs + units
        self.units = units
        self.gates_input = gate_linear(inputs, 3 * units, fan_in)
        self.gates_recurrent = bias_free_linear(units, 3 * units, fan_in)
        self.gates = nn.Sigmoid()
        self.candidate_input = (gate_linear if tanh else bias_free_linear)(inputs, units, fan_in)
        self.candidate_recurrent = bias_free_linear(units, units, fan_in)
        self.candidate = nn.Tanh() if tanh else nn.ReLU()
        self.output = nn.Tanh() if tanh else nn.Identity()
        self.dropout = SequenceDropout(dropout, stationary)
        with torch.no_grad():
            self.gates_input.bias[units : 2 * units] = 1.0  # forget gates are open at first

    def forward(
        self, driven: tuple[Tensor, Tensor], start: tuple[Tensor, Tensor] | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Run over a sequence.

        Args:
            driven: the results of `drive`, (B, T, 3 * units) and (B, T, units).
            start: h_0 and c_0, (B, units) each; zeros if not given.

        Returns:
            h of each step, T tensors (B, units), and the last c (B, units).
        """
        gates, signals = driven
        masks = self.dropout.masks(signals, signals.shape[1], self.units)
        outputs: list[Tensor] = []
        hidden, cell = start if start is not None else (None, signals.new_zeros(()))
        for step, (gate, signal) in enumerate(zip(gates.unbind(1), signals.unbind(1), strict=True)):
            if hidden is not None:
                gate = gate + self.gates_recurrent(hidden)
                signal = signal + self.candidate_recurrent(hidden)
            write, forget, read = self.gates(gate).chunk(3, dim=1)
            cell = forget * cell + write * self.candidate(signal)
            hidden = read * self.output(cell)
            if masks is not None:
                hidden = hidden * masks[step]
            outputs.append(hidden)
        return outputs, cell


class GRUCell(_GatedCell):
    """h_t = (1 - z) n_t + z h_{t-1}, n_t = ReLU(W_n x_t + r U_n h_{t-1}); r and z are gates: the R-GRU's cell.

    With `tanh`, the ordinary GRU: n_t = tanh(W_n x_t + b + r (U_n h_{t-1} + b')).

    Args:
        inputs: width of x_t.
        units: width of h_t.
        dropout: probability of dropping a unit of h_t.
        stationary: hold the dropout mask over all steps of a sequence.
        tanh: see above.
    """

    def __init__(
        self, inputs: int, units: int, dropout: float = 0.0, stationary: bool = False, tanh: bool = False
    ) -> None:
        super().__init__()
        check_sizes(units=units)
        fan_in = inputs + units
        self.units = units
        make = gate_linear if tanh else bias_free_linear
        self.gates_input = gate_linear(inputs, 2 * units, fan_in)
        self.gates_recurrent = bias_free_linear(units, 2 * units, fan_in)
        self.gates = nn.Sigmoid()
        self.candidate_input = make(inputs, units, fan_in)
        self.candidate_recurrent = make(units, units, fan_in)
        self.candidate = nn.Tanh() if tanh else nn.ReLU()
        self.dropout = SequenceDropout(dropout, stationary)

    def forward(self, driven: tuple[Tensor, Tensor], start: Tensor | None = None) -> list[Tensor]:
        """Run over a sequence.

        Args:
            driven: the results of `drive`, (B, T, 2 * units) and (B, T, units).
            start: h_0, (B, units); zeros if not given.

        Returns:
            h of each step, T tensors (B, units).
        """
        gates, signals = driven
        masks = self.dropout.masks(signals, signals.shape[1], self.units)
        outputs: list[Tensor] = []
        hidden = start if start is not None else signals.new_zeros(len(signals), self.units)
        for step, (gate, signal) in enumerate(zip(gates.unbind(1), signals.unbind(1), strict=True)):
            reset, keep = self.gates(gate + self.gates_recurrent(hidden)).chunk(2, dim=1)
            new = self.candidate(signal + reset * self.candidate_recurrent(hidden))
            hidden = (1 - keep) * new + keep * hidden
            if masks is not None:
                hidden = hidden * masks[step]
            outputs.append(hidden)
        return outputs


class EvidenceCell(nn.Module):
    """m_t = m_{t-1} + sum s g_t^(p-1) e_t, with m_0 = 0.

    The evidence is e_t = ReLU(E z_t), z_t = ReLU(sum_k W_k f_{t-k}), and its weight g_t = min(e_t / s, 1), so that
    min(e_t, s) e_t is added if p is 2. The memory has one unit per class and only grows: evidence is added when it
    is seen. The last `window` steps are seen at once, so that no state has to carry pixels. Weak evidence counts
    little, and has a small gradient. The sum is over the evidence units of a class. A single unit may be inactive
    for all pictures at first, and would then never learn its class.

    Args:
        inputs: width of f_t.
        hidden: width of z_t.
        classes: width of m_t.
        window: number of steps that z_t sees.
        units: number of evidence units per class.
        limit: s, the evidence of a unit above which its weight does not grow.
        power: p, the power of evidence below the limit: 1 weighs all evidence alike.

    Raises:
        ValueError: a size or `power` is below 1, or `limit` is out of range.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        classes: int,
        window: int = 4,
        units: int = 4,
        limit: float = 10.0,
        power: int = 2,
    ) -> None:
        super().__init__()
        check_sizes(hidden=hidden, classes=classes, window=window, units=units, power=power)
        if not 0 < limit < math.inf:
            raise ValueError(f"limit={limit} must be positive and finite")
        self.window = window
        self.units = units
        self.limit = limit
        self.power = power
        self.window_input = bias_free_linear(inputs, window * hidden, fan_in=window * inputs)
        self.hidden = nn.ReLU()
        self.evidence_input = bias_free_linear(hidden, classes * units)
        self.evidence = nn.ReLU()
        self.gates = nn.Hardsigmoid()  # min(max(x / 6 + 1 / 2, 0), 1)

    def drive(self, features: Tensor) -> Tensor:
        """(..., inputs) to (..., window * hidden): W_k f_t for each k, which are parts of z_t, z_{t+1}, ..."""
        return self.window_input(features)

    def forward(self, driven: Tensor) -> Tensor:
        """The results of `drive`, (B, T, window * hidden), to the memory after the last step, (B, classes)."""
        steps = [step.chunk(self.window, dim=1) for step in driven.unbind(1)]
        seen = [
            sum((steps[now - k][k] for k in range(1, min(self.window, now + 1))), start=steps[now][0])
            for now in range(len(steps))
        ]
        hidden = self.hidden(torch.stack(seen, dim=1))
        evidence = self.evidence(self.evidence_input(hidden))
        weight, added = self.gates(6 / self.limit * evidence - 3), self.limit * evidence
        for _ in range(self.power - 1):
            added = weight * added
        # Nothing depends on the memory, so all steps are added at once.
        return added.unflatten(2, (-1, self.units)).sum(dim=(1, 3))
