"""Networks that add up evidence for each class: explainable by design (docs/designing.md)."""

from typing import Any

from torch import nn

from rnnx_lightning.architectures.base import CellNetwork
from rnnx_lightning.architectures.cells import EvidenceCell
from rnnx_lightning.architectures.fronts import conv_front, linear_front
from rnnx_lightning.architectures.layers import SequenceDropout


class Evidence(CellNetwork):
    """One layer on each step, then evidence for each class, added up. 186,368 parameters with these sizes.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        hidden: width of the layer that sees a window of steps.
        classes: number of logits, each the sum of its evidence.
        window: number of steps that are seen at once.
        units: number of evidence units per class.
        limit: the evidence of a unit above which its weight does not grow.
        power: the power of evidence that is added, see `EvidenceCell`.
        dropout: probability of dropping a unit of the input part.
        stationary_dropout: hold the dropout masks over all steps of a sequence.
        rows: height of the picture in pixels.
    """

    convolutional = False

    def __init__(
        self,
        columns: int = 7,
        features: int = 256,
        hidden: int = 128,
        classes: int = 10,
        window: int = 4,
        units: int = 4,
        limit: float = 10.0,
        power: int = 2,
        dropout: float = 0.1,
        stationary_dropout: bool = False,
        rows: int = 28,
    ) -> None:
        front = (conv_front if self.convolutional else linear_front)(rows, columns, features=features)
        drop = SequenceDropout(dropout, stationary_dropout)
        cell = EvidenceCell(features, hidden, classes, window, units, limit, power)
        super().__init__(columns, front, drop, cell, nn.Identity(), rows)


class ConvEvidence(Evidence):
    """Two convolutions on each step, then as `Evidence`. 135,512 parameters with these sizes.

    Args:
        columns: pixel columns a time step.
        features: width of the input part.
        **options: as of `Evidence`.
    """

    convolutional = True

    def __init__(self, columns: int = 7, features: int = 128, **options: Any) -> None:
        super().__init__(columns, features, **options)
