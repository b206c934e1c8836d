"""Shallow with dropout of only some of x_t, r_{t-1} and h_t: where did the published Shallow drop units?

    PYTHONPATH=docs/study rnnx fit --config configs/shallow.yaml --config configs/published/recipe.yaml \
        --model.network shallow.DropoutOf --model.network.init_args.of h --trainer.max_epochs 10

The numbers are in dropout_places.csv, one row per run: similarity over the first 1,000 validation sequences.
"""

import torch
from torch import Tensor

from rnnx_lightning.architectures import Shallow
from rnnx_lightning.architectures.cells import DeepCell
from rnnx_lightning.architectures.layers import SequenceDropout

WIDTH = 256
PIXELS = 196


class Cell(DeepCell):
    """`DeepCell` with dropout of only some of r_{t-1} and h_t.

    Args:
        of: letters of "rh".
        dropout: probability of dropping a unit.
    """

    def __init__(self, of: str, dropout: float) -> None:
        super().__init__(PIXELS, WIDTH, WIDTH, dropout)
        self.of = of

    def forward(self, driven: Tensor) -> Tensor:
        """What `drive` gives, (B, T, hidden), to h after the last step, (B, hidden)."""
        masks = {letter: self.dropout.masks(driven, driven.shape[1], WIDTH) for letter in self.of}
        recurrent, hidden = masks.get("r"), masks.get("h")
        state = driven.new_zeros(())
        for step, drive in enumerate(driven.unbind(1)):
            if step > 0:
                before = self.recurrent(self.to_recurrent(state))
                drive = drive + self.from_recurrent(before if recurrent is None else before * recurrent[step])
            state = self.hidden(drive)
            state = state if hidden is None else state * hidden[step]
        return state


class DropoutOf(Shallow):
    """`Shallow` with dropout of only some of x_t, r_{t-1} and h_t.

    Args:
        of: letters of "xrh".
        dropout: probability of dropping a unit.
    """

    def __init__(self, of: str = "xrh", dropout: float = 0.2) -> None:
        super().__init__(dropout=dropout)
        self.dropout = SequenceDropout(dropout if "x" in of else 0.0)
        with torch.random.fork_rng([]):  # the weights and random numbers are those of `Shallow`
            cell = Cell(of.replace("x", ""), dropout)
        cell.load_state_dict(self.cell.state_dict())
        self.cell = cell
