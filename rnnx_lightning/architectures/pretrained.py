"""Drop-in replacements of nn.LSTM and nn.GRU, made of layers that can be explained."""

from typing import Any

import torch
from torch import Tensor, nn

from rnnx_lightning.architectures.cells import GRUCell, LSTMCell


class _Explainable(nn.Module):
    """Layers and directions of a fused recurrent module, one explainable cell each."""

    fused_class: type[nn.RNNBase]
    cell_class: type[LSTMCell | GRUCell]

    def __init__(self, fused: nn.RNNBase) -> None:
        super().__init__()
        if not isinstance(fused, self.fused_class):
            raise TypeError(f"expected {self.fused_class.__name__}, got {type(fused).__name__}")
        if fused.proj_size:
            raise ValueError("projections (proj_size) are not supported")
        self.batch_first = fused.batch_first
        self.directions = 2 if fused.bidirectional else 1
        self.dropout = nn.Dropout(fused.dropout)
        self.cells = nn.ModuleList()
        for layer in range(fused.num_layers):
            inputs = fused.input_size if layer == 0 else fused.hidden_size * self.directions
            for direction in range(self.directions):
                cell = self.cell_class(inputs, fused.hidden_size, tanh=True)
                suffix = f"_l{layer}" + ("_reverse" if direction else "")
                self.cells.append(cell)
                with torch.no_grad():
                    self._load(cell, fused, suffix)
        self.to(next(fused.parameters()))
        self.train(fused.training)

    def _load(self, cell: nn.Module, fused: nn.RNNBase, suffix: str) -> None:
        raise NotImplementedError

    def _run(self, cell: Any, x: Tensor, start: tuple[Tensor, ...] | None) -> tuple[list[Tensor], Tensor]:
        raise NotImplementedError

    def _forward(self, x: Tensor, start: tuple[Tensor, ...] | None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Output, last hidden states and last cell states of all layers and directions."""
        if x.dim() != 3:
            raise ValueError(f"expected a batch of sequences (3 dimensions), got {x.dim()}")
        x = x if self.batch_first else x.transpose(0, 1)
        hidden, cells = [], []
        for number, cell in enumerate(self.cells):
            direction = number % self.directions
            if direction == 0:
                layer_input = x if number == 0 else self.dropout(x)
                outputs = []
            steps = layer_input.flip(1) if direction else layer_input
            first = None if start is None else tuple(part[number] for part in start)
            shown, last = self._run(cell, steps, first)
            hidden.append(shown[-1])
            cells.append(last)
            outputs.append(torch.stack(shown[::-1] if direction else shown, dim=1))
            if direction == self.directions - 1:
                x = torch.cat(outputs, dim=2) if self.directions == 2 else outputs[0]
        return (x if self.batch_first else x.transpose(0, 1)), hidden, cells


class ExplainableLSTM(_Explainable):
    """A trained `nn.LSTM` that can be explained: same weights, same call, same outputs.

    Args:
        fused: any nn.LSTM without projections, with any number of layers and directions.

    Raises:
        TypeError: `fused` is no nn.LSTM.
        ValueError: it has projections.
    """

    fused_class = nn.LSTM
    cell_class = LSTMCell

    def _load(self, cell: nn.Module, fused: nn.RNNBase, suffix: str) -> None:
        assert isinstance(cell, LSTMCell)
        bias = torch.zeros(4 * fused.hidden_size)
        if fused.bias:
            bias = getattr(fused, f"bias_ih{suffix}") + getattr(fused, f"bias_hh{suffix}")
        # torch keeps input gate, forget gate, candidate, output gate.
        for part, gates, candidate in (
            (getattr(fused, f"weight_ih{suffix}"), cell.gates_input.weight, cell.candidate_input.weight),
            (getattr(fused, f"weight_hh{suffix}"), cell.gates_recurrent.weight, cell.candidate_recurrent.weight),
            (bias, cell.gates_input.bias, cell.candidate_input.bias),
        ):
            write, forget, signal, read = part.chunk(4)
            gates.copy_(torch.cat([write, forget, read]))
            candidate.copy_(signal)

    def _run(self, cell: Any, x: Tensor, start: tuple[Tensor, ...] | None) -> tuple[list[Tensor], Tensor]:
        outputs, last = cell(cell.drive(x), start)
        return outputs, last

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As nn.LSTM: output, (h_n, c_n)."""
        output, hidden, cells = self._forward(input, hx)
        return output, (torch.stack(hidden), torch.stack(cells))


class ExplainableGRU(_Explainable):
    """A trained `nn.GRU` that can be explained: same weights, same call, same outputs.

    Args:
        fused: any nn.GRU, with any number of layers and directions.

    Raises:
        TypeError: `fused` is no nn.GRU.
    """

    fused_class = nn.GRU
    cell_class = GRUCell

    def _load(self, cell: nn.Module, fused: nn.RNNBase, suffix: str) -> None:
        assert isinstance(cell, GRUCell)
        nothing = torch.zeros(3 * fused.hidden_size)
        bias_input = getattr(fused, f"bias_ih{suffix}") if fused.bias else nothing
        bias_recurrent = getattr(fused, f"bias_hh{suffix}") if fused.bias else nothing
        # torch keeps reset gate, update gate, candidate.
        for part, gates, candidate in (
            (getattr(fused, f"weight_ih{suffix}"), cell.gates_input.weight, cell.candidate_input.weight),
            (getattr(fused, f"weight_hh{suffix}"), cell.gates_recurrent.weight, cell.candidate_recurrent.weight),
        ):
            units = fused.hidden_size
            gates.copy_(part[: 2 * units])
            candidate.copy_(part[2 * units :])
        units = fused.hidden_size
        cell.gates_input.bias.copy_((bias_input + bias_recurrent)[: 2 * units])
        cell.candidate_input.bias.copy_(bias_input[2 * units :])
        cell.candidate_recurrent.bias.copy_(bias_recurrent[2 * units :])

    def _run(self, cell: Any, x: Tensor, start: tuple[Tensor, ...] | None) -> tuple[list[Tensor], Tensor]:
        outputs = cell(cell.drive(x), None if start is None else start[0])
        return outputs, outputs[-1]

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As nn.GRU: output, h_n."""
        output, hidden, _ = self._forward(input, None if hx is None else (hx,))
        return output, torch.stack(hidden)
