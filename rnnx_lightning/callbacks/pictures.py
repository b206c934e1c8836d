"""Pictures of the sequences that a run is validated and tested on."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from rnnx_lightning.callbacks.evaluation import AfterEvaluation
from rnnx_lightning.callbacks.showing import show
from rnnx_lightning.data.batches import SequenceBatch
from rnnx_lightning.rendering.sequences import draw_sequences


class SequencePictures(AfterEvaluation):
    """Shows one picture of the first validation (or test) sequences: label, prediction, majority mask.

    Args:
        count: number of sequences.
    """

    def __init__(self, count: int = 12) -> None:
        self.count = count

    def look(
        self,
        trainer: Trainer,
        module: LightningModule,
        logits: Tensor,
        batch: SequenceBatch,
        number: int,
        stage: str,
    ) -> None:
        """Draw the first batch."""
        if number > 0 or not trainer.is_global_zero:
            return
        shown = batch.first(self.count)
        figure = draw_sequences(
            shown.image,
            shown.label,
            logits[: self.count].argmax(dim=1),
            shown.majority,
            trainer.datamodule.class_names,  # type: ignore[attr-defined]
        )
        show(trainer, self.folder, f"{stage}/sequences", figure)
