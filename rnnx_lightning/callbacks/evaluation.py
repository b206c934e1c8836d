"""What callbacks that look at validation and test batches share."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rnnx_lightning.callbacks.folder import run_folder
from rnnx_lightning.data.batches import SequenceBatch


class AfterEvaluation(Callback):
    """Calls `look` with each batch of a validation or test, but not of the sanity check.

    Attributes:
        folder: of the run, once it is set up; None where there is none.
    """

    folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """All ranks ask for the folder, before one of them draws."""
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
        """See one batch; `stage` is "val" or "test"."""
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
