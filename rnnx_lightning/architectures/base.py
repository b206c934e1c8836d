"""The base classes of networks: they cut the picture into time steps, and encode each distinct image once."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rnnx_lightning.architectures.cells import DeepCell, EvidenceCell, GRUCell, LSTMCell
from rnnx_lightning.architectures.layers import SequenceDropout, check_sizes


class RecurrentNetwork(nn.Module):
    """A network that reads a picture a few pixel columns at a time, left to right.

    A subclass defines how one step is encoded (`encode`), and how a sequence of encoded steps becomes logits
    (`decide`). All steps of all sequences are encoded at once; only the recurrent cell loops over steps.

    Args:
        columns: pixel columns a time step.
        rows: height of the picture in pixels.

    Raises:
        ValueError: a size is below 1.
    """

    def __init__(self, columns: int = 7, rows: int = 28) -> None:
        super().__init__()
        check_sizes(columns=columns, rows=rows)
        self.columns = columns
        self.rows = rows

    def encode(self, steps: Tensor) -> Any:
        """(N, 1, rows, columns) in [-1, 1] to (N, F), or to a tuple of such: all that depends on one step only."""
        raise NotImplementedError

    def decide(self, features: Any) -> Tensor:
        """(B, T, F), or a tuple of such, to (B, classes): the logits after the last step."""
        raise NotImplementedError

    def forward(self, image: Tensor, order: Tensor | None = None) -> Tensor:
        """Logits of sequences.

        Args:
            image: (B, 1, rows, W) pictures in [-1, 1], W a multiple of `columns`.
            order: (B, S) int64. If it is given, `image` holds distinct samples, and sequence b shows the
                samples order[b, 0], order[b, 1], ... side by side. The logits are the same as for the
                assembled pictures, but each sample is encoded only once.

        Returns:
            (B, classes).

        Raises:
            ValueError: the picture cannot be cut into time steps.
        """
        width = image.shape[-1] if image.dim() == 4 else 0
        if width < 1 or width % self.columns or image.shape[1:3] != (1, self.rows):
            raise ValueError(
                f"{type(self).__name__} reads pictures of shape (B, 1, {self.rows}, multiple of {self.columns}), "
                f"got {tuple(image.shape)}: do data.columns and the network's columns agree?"
            )
        n, length = len(image), width // self.columns
        steps = image.unflatten(3, (length, self.columns)).permute(0, 3, 1, 2, 4)

        def in_sequence(encoded: Tensor) -> Tensor:
            samples = encoded.unflatten(0, (n, length))
            if order is None:
                return samples
            # An embedding chooses rows; its backward pass is fast, and deterministic also on a GPU.
            return F.embedding(order, samples.flatten(1)).view(len(order), -1, encoded.shape[-1])

        encoded = self.encode(steps.flatten(0, 1))
        if isinstance(encoded, tuple):
            return self.decide(tuple(map(in_sequence, encoded)))
        return self.decide(in_sequence(encoded))


class CellNetwork(RecurrentNetwork):
    """A front for each step, dropout, a recurrent cell, and an output part.

    What the cell computes from one step only (`drive`) is computed in `encode`, so once for each distinct image.
    Sequences of a batch that show the same image then share the dropout mask of its features. Within a sequence,
    each step has its own mask, unless dropout is stationary.

    Args:
        columns: pixel columns a time step.
        front: (N, 1, rows, columns) to (N, F).
        dropout: dropout of the front's output.
        cell: the recurrent cell, the only part that loops over steps.
        output: the hidden state after the last step to logits.
        rows: height of the picture in pixels.
    """

    def __init__(
        self,
        columns: int,
        front: nn.Module,
        dropout: SequenceDropout,
        cell: DeepCell | LSTMCell | GRUCell | EvidenceCell,
        output: nn.Module,
        rows: int = 28,
    ) -> None:
        super().__init__(columns, rows)
        self.front = front
        self.dropout = dropout
        self.cell = cell
        self.output = output

    def encode(self, steps: Tensor) -> Any:
        """(N, 1, rows, columns) to the cell's `drive`; with stationary dropout only to features (N, F)."""
        features = self.front(steps)
        return features if self.dropout.stationary else self._drive(features)

    def decide(self, features: Any) -> Tensor:
        """The result of `encode` for T steps to logits (B, classes)."""
        return self.output(self.recur(self._drive(features) if self.dropout.stationary else features))

    def _drive(self, features: Tensor) -> Any:
        return self.cell.drive(self.dropout(features))

    def recur(self, driven: Any) -> Tensor:
        """The results of `drive` at all steps to the hidden state after the last step, (B, units)."""
        return self.cell(driven)
