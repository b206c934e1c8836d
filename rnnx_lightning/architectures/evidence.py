"""Networks that add up evidence for each class: explainable by design (docs/designing.md)."""

import torch
from torch import Tensor, nn

from rnnx_lightning.architectures.base import CellNetwork
from rnnx_lightning.architectures.fronts import conv_front, linear_front
from rnnx_lightning.architectures.layers import SequenceDropout, bias_free_linear, check_window, gate_linear


class EvidenceCell(nn.Module):
    """m_t = m_{t-1} + sigmoid(G z_t + U m_{t-1} + b) * ReLU(E z_t), z_t = ReLU(sum_k W_k f_{t-k}), m_0 = 0.

    The memory has one unit a class and only ever grows: evidence is added at the time when it is seen. The last
    `window` steps are seen at once, so that no state has to carry pixels; what is remembered is ten numbers. The
    gates see the memory, and are the only part with a bias.

    Args:
        inputs: width of f_t.
        hidden: width of z_t.
        classes: width of m_t.
        window: how many steps z_t is made of.
    """

    def __init__(self, inputs: int, hidden: int, classes: int, window: int) -> None:
        super().__init__()
        check_window(window)
        self.window = window
        self.window_input = bias_free_linear(inputs, window * hidden, fan_in=window * inputs)
        self.hidden = nn.ReLU()
        self.evidence_input = bias_free_linear(hidden, classes)
        self.evidence = nn.ReLU()
        self.gates_input = gate_linear(hidden, classes, fan_in=hidden + classes)
        self.gates_memory = bias_free_linear(classes, classes, fan_in=hidden + classes)
        self.gates = nn.Sigmoid()

    def drive(self, features: Tensor) -> Tensor:
        """(..., inputs) to (..., window * hidden): W_k f_t for each k, what a step brings to z_t, z_{t+1}, ..."""
        return self.window_input(features)

    def forward(self, driven: Tensor) -> Tensor:
        """What `drive` gives, (B, T, window * hidden), to the memory after the last step, (B, classes)."""
        steps = [step.chunk(self.window, dim=1) for step in driven.unbind(1)]
        seen = [
            sum((steps[now - k][k] for k in range(1, min(self.window, now + 1))), start=steps[now][0])
            for now in range(len(steps))
        ]
        hidden = self.hidden(torch.stack(seen, dim=1))
        evidence = self.evidence(self.evidence_input(hidden)).unbind(1)
        gates = self.gates_input(hidden).unbind(1)
        memory = self.gates(gates[0]) * evidence[0]
        for gate, found in zip(gates[1:], evidence[1:], strict=True):
            memory = memory + self.gates(gate + self.gates_memory(memory)) * found
        return memory


class _EvidenceFamily(CellNetwork):
    """Front, dropout, evidence cell; its memory is the logits."""

    def __init__(
        self, columns: int, front: nn.Module, features: int, hidden: int, classes: int, window: int,
        dropout: float, stationary: bool,
    ) -> None:
        drop = SequenceDropout(dropout, stationary)
        super().__init__(columns, front, drop, EvidenceCell(features, hidden, classes, window), nn.Identity())


class Evidence(_EvidenceFamily):
    """One layer on each step, then evidence for each class, added up. ? parameters with these sizes.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        hidden: width of the layer that sees a window of steps.
        classes: number of logits, each the sum of its evidence.
        window: how many steps are seen at once.
        dropout: probability of dropping a unit of the input part.
        stationary_dropout: hold the dropout masks over all steps of a sequence.
    """

    def __init__(
        self,
        columns: int = 7,
        features: int = 256,
        hidden: int = 128,
        classes: int = 10,
        window: int = 4,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
    ) -> None:
        front = linear_front(28, columns, features)
        super().__init__(columns, front, features, hidden, classes, window, dropout, stationary_dropout)


class ConvEvidence(_EvidenceFamily):
    """Two convolutions on each step, then evidence for each class, added up. ? parameters with these sizes.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        hidden: width of the layer that sees a window of steps.
        classes: number of logits, each the sum of its evidence.
        window: how many steps are seen at once.
        dropout: probability of dropping a unit of the input part.
        stationary_dropout: hold the dropout masks over all steps of a sequence.
    """

    def __init__(
        self,
        columns: int = 7,
        features: int = 128,
        hidden: int = 128,
        classes: int = 10,
        window: int = 4,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
    ) -> None:
        front = conv_front(28, columns, features)
        super().__init__(columns, front, features, hidden, classes, window, dropout, stationary_dropout)
