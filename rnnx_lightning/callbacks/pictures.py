"""Pictures of sequences in TensorBoard."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from rnnx_lightning.data.loader import SequenceBatch
from rnnx_lightning.rendering.sequences import draw_sequences


class SequencePictures(Callback):
    """Logs one picture of the first validation (or test) sequences: label, prediction, majority mask.

    Args:
        count: number of sequences.
    """

    def __init__(self, count: int = 12) -> None:
        self.count = count

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SequenceBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first batch."""
        if batch_idx == 0 and not trainer.sanity_checking:
            self._log(trainer, outputs, batch, "val/sequences")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SequenceBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first batch."""
        if batch_idx == 0:
            self._log(trainer, outputs, batch, "test/sequences")

    def _log(self, trainer: Trainer, logits: Tensor, batch: SequenceBatch, tag: str) -> None:
        if not isinstance(trainer.logger, TensorBoardLogger) or not trainer.is_global_zero:
            return
        shown = batch.first(self.count)
        figure = draw_sequences(
            shown.image,
            shown.label,
            logits[: self.count].argmax(dim=1),
            shown.majority,
            trainer.datamodule.class_names,  # type: ignore[attr-defined]
        )
        step = max(trainer.global_step - 1, 0)  # where Lightning puts the scalars of the same moment
        trainer.logger.experiment.add_figure(tag, figure, step)
