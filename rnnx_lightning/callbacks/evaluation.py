"""The base class of callbacks that look at validation and test batches."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rnnx_lightning.callbacks.folder import run_folder
from rnnx_lightning.data.batches import SequenceBatch


class AfterEvaluation(Callback):
    """Calls `look` with each batch of a validation or test, but not of the sanity check.

    Attributes:
        folder: the run's folder, after `setup`; None if it has none.
    """

    folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder here, because all ranks must ask; later only rank 0 draws."""
        self.folder = run_folder(trainer)

    def look(
        self,
        trainer: Trainer,
        module: LightningModule,
        logits: Tensor,
        batch: SequenceBatch,
        number: int,
        stage: str,
    ) -> None:
        """Look at batch `number`; `stage` is "val" or "test"."""
        raise NotImplementedError

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SequenceBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the batch."""
        if not trainer.sanity_checking:
            self.look(trainer, pl_module, outputs, batch, batch_idx, "val")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SequenceBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the batch."""
        self.look(trainer, pl_module, outputs, batch, batch_idx, "test")
