"""Scores of explanations: pure functions, and torchmetrics based on them."""

from rnnx_lightning.metrics.quantus_scores import Quantus
from rnnx_lightning.metrics.relevance import (
    ConservationError,
    DeletionArea,
    MajorityCosineSimilarity,
    PixelFlippingArea,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
)

__all__ = [
    "ConservationError",
    "DeletionArea",
    "MajorityCosineSimilarity",
    "PixelFlippingArea",
    "Quantus",
    "RelevanceMassAccuracy",
    "RelevanceRankAccuracy",
]
