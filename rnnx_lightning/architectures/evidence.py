"""Networks that add up evidence for each class: explainable by design (docs/designing.md)."""

from torch import nn

from rnnx_lightning.architectures.base import CellNetwork
from rnnx_lightning.architectures.cells import EvidenceCell
from rnnx_lightning.architectures.fronts import conv_front, linear_front
from rnnx_lightning.architectures.layers import SequenceDropout


class _EvidenceFamily(CellNetwork):
    """Front, dropout, evidence cell; its memory is the logits."""

    def __init__(
        self,
        columns: int,
        front: nn.Module,
        features: int,
        hidden: int,
        classes: int,
        window: int,
        dropout: float,
        stationary: bool,
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
