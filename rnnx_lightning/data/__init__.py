"""Images, the plan of majority-sample sequences, and the Lightning data module that hands them out."""

from rnnx_lightning.data.batches import PlannedBatch, SequenceBatch
from rnnx_lightning.data.datamodule import MajoritySequences
from rnnx_lightning.data.majority import ImpossibleSequencesError, Plan
from rnnx_lightning.data.sources import DataError

__all__ = ["DataError", "ImpossibleSequencesError", "MajoritySequences", "Plan", "PlannedBatch", "SequenceBatch"]
