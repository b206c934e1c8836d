"""Images, the plan of majority-sample sequences, and the Lightning data module that hands them out."""

from rnnx_lightning.data.batches import PlannedBatch, SequenceBatch
from rnnx_lightning.data.datamodule import MajoritySequences
from rnnx_lightning.data.images import ImageSet, load_images
from rnnx_lightning.data.loader import EvaluationLoader, TrainingLoader
from rnnx_lightning.data.majority import ImpossibleSequencesError, Plan, draw_plan
from rnnx_lightning.data.sources import DataError

__all__ = [
    "DataError",
    "EvaluationLoader",
    "ImageSet",
    "ImpossibleSequencesError",
    "MajoritySequences",
    "Plan",
    "PlannedBatch",
    "SequenceBatch",
    "TrainingLoader",
    "draw_plan",
    "load_images",
]
