"""Lightning callbacks: explanations, checkpoints, progress, results, and stopping and resuming a run."""

from rnnx_lightning.callbacks.explaining import Explainability
from rnnx_lightning.callbacks.finite_loss import FiniteLoss
from rnnx_lightning.callbacks.keeping import BestAndLast
from rnnx_lightning.callbacks.pictures import SequencePictures
from rnnx_lightning.callbacks.predicting import PredictionTable
from rnnx_lightning.callbacks.progress import EpochLines, Throughput
from rnnx_lightning.callbacks.randomness import StepRandomness
from rnnx_lightning.callbacks.results import ResultTable
from rnnx_lightning.callbacks.resuming import Resuming
from rnnx_lightning.callbacks.stopping import GracefulStop

__all__ = [
    "BestAndLast",
    "EpochLines",
    "Explainability",
    "FiniteLoss",
    "GracefulStop",
    "PredictionTable",
    "ResultTable",
    "Resuming",
    "SequencePictures",
    "StepRandomness",
    "Throughput",
]
