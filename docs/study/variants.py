"""Variants of the evidence network, only for the study: what carries the effect, and what would help."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnx_lightning.architectures.base import CellNetwork
from rnnx_lightning.architectures.cells import LSTMCell
from rnnx_lightning.architectures.fronts import conv_front, linear_front
from rnnx_lightning.architectures.layers import SequenceDropout, bias_free_linear, gate_linear


class NonPositiveBias(nn.Module):
    """x - softplus(b'): a threshold that what is said has to pass."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width), lowered."""
        return x - F.softplus(self.raw)


class PositiveLinear(nn.Module):
    """A linear layer whose weights are not negative."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.raw = bias_free_linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return F.linear(x, self.raw.weight.abs())


class VariantCell(nn.Module):
    """The evidence cell with every choice open.

    Args:
        inputs: width of f_t.
        hidden: width of z_t.
        classes: number of logits.
        window: steps that z_t is made of; of the recurrent inner states 1.
        inner: "window"; "rlstm", an R-LSTM in its place; "reset", z_t = ReLU(W f_t + k_t R z_{t-1}) with a learnt
            gate k_t; "told", the same with k_t = 0 at the first step of each sample, which it is told.
        units: width of the memory, with a linear output after it; 0: one a class, and no output.
        sign: "free" or "positive" weights of that output.
        gate: "memory", sees z and all of m; "own", z and its own unit of m; "input", only z; "evidence", only
            its own evidence (`tied`); "none".
        forget: "none"; "gate": m_t = f_t m_{t-1} + ..., f_t seeing z and m.
        tied: how steeply the gate opens with its own evidence; 0: it does not see it.
        huber: evidence a becomes min(a / huber, 1) a; 0: a.
        square: evidence a becomes min(a, square) a, as in the package; 0: a.
        threshold: evidence has a bias that is not positive.
        gate_bias: where the gates begin.
        period: steps of a sample, for "told".
        evidence: "free" or "positive" weights of the evidence.
        compete: how far, at first, a gate closes with the evidence for other classes; 0: it does not see it.
        drop_hidden: dropout of z_t.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        classes: int,
        window: int,
        inner: str = "window",
        units: int = 0,
        sign: str = "free",
        gate: str = "memory",
        forget: str = "none",
        tied: float = 0.0,
        huber: float = 0.0,
        threshold: bool = False,
        gate_bias: float = 0.0,
        period: int = 4,
        evidence: str = "free",
        square: float = 0.0,
        several: int = 1,
        shift: float = 0.0,
        compete: float = 0.0,
        drop_hidden: float = 0.0,
    ) -> None:
        super().__init__()
        width = units or classes
        self.window, self.inner, self.gate_kind, self.forget_kind, self.period = (
            window,
            inner,
            gate,
            forget,
            period,
        )
        self.huber, self.square = huber, square
        self.drop_hidden = nn.Dropout(drop_hidden)
        self.compete = bias_free_linear(width, width) if compete else None
        if self.compete is not None:
            self.compete.weight = nn.Parameter(compete * (2 * torch.eye(width) - 1))
        if inner == "rlstm":
            self.inner_cell = LSTMCell(inputs, hidden)
        else:
            self.window_input = bias_free_linear(inputs, window * hidden, fan_in=window * inputs)
        if inner in ("reset", "told"):
            self.inner_recurrent = bias_free_linear(hidden, hidden)
            self.inner_keep = gate_linear(inputs, hidden, inputs)
            self.inner_gate = nn.Sigmoid()
        self.hidden = nn.ReLU()
        positive = evidence == "positive"
        self.evidence_input = (PositiveLinear if positive else bias_free_linear)(hidden, width * several)
        self.several = several
        if shift:
            assert isinstance(self.evidence_input, nn.Linear)
            self.evidence_input.weight.data.add_(shift / hidden**0.5)
        self.bias = NonPositiveBias(width, -3.0) if threshold else nn.Identity()
        self.evidence = nn.ReLU()
        if gate == "evidence":
            self.gate_bias = nn.Parameter(torch.full((width,), gate_bias))
        elif gate != "none":
            self.gates_input = gate_linear(hidden, width, fan_in=hidden + width)
            nn.init.constant_(self.gates_input.bias, gate_bias)
        if gate == "memory":
            self.gates_memory: nn.Module = bias_free_linear(width, width, fan_in=hidden + width)
        if gate == "own":
            self.gates_memory = Diagonal(width, 0.0)
        if tied:
            self.tied = Diagonal(width, tied)
        self.gates, self.weigh = nn.Sigmoid(), nn.Hardsigmoid()
        if forget == "gate":
            self.forget_input = gate_linear(hidden, width, fan_in=hidden + width)
            nn.init.constant_(self.forget_input.bias, 3.0)
            self.forget_memory = bias_free_linear(width, width, fan_in=hidden + width)
            self.keep = nn.Sigmoid()
        self.output: nn.Module = nn.Identity()
        if units:
            self.output = (
                PositiveLinear(units, classes) if sign == "positive" else bias_free_linear(units, classes)
            )

    def drive(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(..., inputs) to what one step contributes."""
        if self.inner == "rlstm":
            return self.inner_cell.drive(features)
        driven = self.window_input(features)
        return (driven, self.inner_keep(features)) if self.inner in ("reset", "told") else driven

    def _hidden(self, driven: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        if self.inner == "rlstm":
            return torch.stack(self.inner_cell(driven)[0], dim=1)
        keeps = None
        if isinstance(driven, tuple):
            driven, keep = driven
            keeps = keep.unbind(1)
        steps = [step.chunk(self.window, dim=1) for step in driven.unbind(1)]
        seen = [
            sum((steps[now - k][k] for k in range(1, min(self.window, now + 1))), start=steps[now][0])
            for now in range(len(steps))
        ]
        if keeps is None:
            return self.hidden(torch.stack(seen, dim=1))
        states: list[Tensor] = []
        for now, drive in enumerate(seen):
            if now > 0 and not (self.inner == "told" and now % self.period == 0):
                carried = self.inner_recurrent(states[-1])
                if self.inner == "reset":
                    carried = self.inner_gate(keeps[now]) * carried
                drive = drive + carried
            states.append(self.hidden(drive))
        return torch.stack(states, dim=1)

    def forward(self, driven: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """What `drive` gives to (B, classes)."""
        hidden = self.drop_hidden(self._hidden(driven))
        found = self.evidence(self.bias(self.evidence_input(hidden)))
        if self.square:  # min(a, square) a
            found = self.weigh(6 / self.square * found - 3) * (self.square * found)
        if self.several > 1:
            found = found.unflatten(2, (-1, self.several)).sum(3)
        if self.huber:
            found = self.weigh(6 * (found / self.huber) - 3) * found
        gate = self.gates_input(hidden) if self.gate_kind not in ("none", "evidence") else None
        if gate is not None and self.compete is not None:
            gate = gate + self.compete(found)
        if self.gate_kind == "evidence":
            gate = self.tied(found) + self.gate_bias
        elif gate is not None and hasattr(self, "tied"):
            gate = gate + self.tied(found)
        if self.gate_kind in ("input", "none", "evidence") and self.forget_kind == "none":
            return self.output((found if gate is None else self.gates(gate) * found).sum(dim=1))
        forget = self.forget_input(hidden) if self.forget_kind == "gate" else None
        memory = None
        for now, evidence in enumerate(found.unbind(1)):
            if gate is not None:
                opening = gate[:, now]
                if memory is not None and hasattr(self, "gates_memory"):
                    opening = opening + self.gates_memory(memory)
                evidence = self.gates(opening) * evidence
            if memory is None:
                memory = evidence
            elif forget is None:
                memory = memory + evidence
            else:
                memory = self.keep(forget[:, now] + self.forget_memory(memory)) * memory + evidence
        return self.output(memory)


class Diagonal(nn.Module):
    """A factor a unit."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), float(start)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width), scaled."""
        return F.linear(x, self.weight.diag())


class Variant(CellNetwork):
    """Front, dropout, the variant cell."""

    def __init__(
        self,
        columns: int = 7,
        features: int = 256,
        hidden: int = 128,
        classes: int = 10,
        window: int = 4,
        dropout: float = 0.1,
        stationary: bool = False,
        conv: bool = False,
        **options: Any,
    ) -> None:
        front = (conv_front if conv else linear_front)(28, columns, features=features)
        cell: Any = VariantCell(features, hidden, classes, window, **options)  # none of the package's
        super().__init__(columns, front, SequenceDropout(dropout, stationary), cell, nn.Identity())
