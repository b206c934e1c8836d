"""Lightning callbacks: when to look at a run, on what, and where to show it."""

from rnnx_lightning.callbacks.explaining import CosineSimilarity, Heatmaps
from rnnx_lightning.callbacks.pictures import SequencePictures
from rnnx_lightning.callbacks.progress import EpochLines, Throughput
from rnnx_lightning.callbacks.results import ResultTable
from rnnx_lightning.callbacks.safety import FiniteLoss, GracefulStop, StepRandomness

__all__ = [
    "CosineSimilarity",
    "EpochLines",
    "FiniteLoss",
    "GracefulStop",
    "Heatmaps",
    "ResultTable",
    "SequencePictures",
    "StepRandomness",
    "Throughput",
]
