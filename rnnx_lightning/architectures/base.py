"""What all networks share: cutting the picture into time steps, and encoding each distinct image once."""

import torch.nn.functional as F
from torch import Tensor, nn

from rnnx_lightning.architectures.layers import check_columns


class RecurrentNetwork(nn.Module):
    """A network that reads a picture a few pixel columns at a time, left to right.

    A subclass says how a step is encoded on its own (`encode`) and how a sequence of encoded steps is decided
    (`decide`). All steps of all sequences are encoded at once; only the recurrent cell is looped over.

    Args:
        columns: pixel columns a time step.
        rows: height of the picture in pixels.

    Raises:
        ValueError: there are no columns.
    """

    def __init__(self, columns: int = 7, rows: int = 28) -> None:
        super().__init__()
        check_columns(columns)
        self.columns = columns
        self.rows = rows

    def encode(self, steps: Tensor) -> Tensor:
        """(N, 1, rows, columns) in [-1, 1] to (N, F): what depends on one step alone."""
        raise NotImplementedError

    def decide(self, features: Tensor) -> Tensor:
        """(B, T, F) to (B, classes): the logits after the last step."""
        raise NotImplementedError

    def forward(self, image: Tensor, order: Tensor | None = None) -> Tensor:
        """Logits of sequences.

        Args:
            image: (B, 1, rows, W) pictures in [-1, 1], W a multiple of `columns`.
            order: (B, S) int64. Where it is given, `image` holds distinct samples, and sequence b shows the
                samples order[b, 0], order[b, 1], ... side by side. The logits are the same as for the
                assembled pictures, but each sample is encoded only once.

        Returns:
            (B, classes).

        Raises:
            ValueError: the picture cannot be cut into time steps.
        """
        n, channels, rows, width = image.shape
        if channels != 1 or rows != self.rows or width % self.columns:
            raise ValueError(
                f"{type(self).__name__} reads pictures of shape (B, 1, {self.rows}, multiple of {self.columns}), "
                f"got {tuple(image.shape)}: do data.columns and the network's columns agree?"
            )
        steps = image.unflatten(3, (width // self.columns, self.columns)).permute(0, 3, 1, 2, 4)
        features = self.encode(steps.flatten(0, 1)).unflatten(0, (n, width // self.columns))
        if order is not None:
            # An embedding is a choice of rows, with a fast backward pass that is the same each time on a GPU, too.
            chosen = F.embedding(order, features.flatten(1))
            features = chosen.view(len(order), -1, features.shape[-1])
        return self.decide(features)
