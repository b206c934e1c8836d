"""Progress of a run: plain lines if there is no terminal, and its speed."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rnnx_lightning.data.batches import SequenceBatch


class EpochLines(Callback):
    """Prints one plain line per epoch with all metrics, for log files."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        metrics = trainer.callback_metrics  # summed over all ranks, so every rank must ask
        if trainer.is_global_zero:
            values = "  ".join(f"{name} {_shown(float(value))}" for name, value in metrics.items())
            elapsed = time.perf_counter() - self._start
            end = "" if trainer.max_epochs == -1 else f"/{trainer.max_epochs}"
            print(f"epoch {trainer.current_epoch + 1}{end}  {elapsed:.0f} s  {values}", flush=True)


def _shown(value: float) -> str:
    return f"{value:.4g}" if 0 < abs(value) < 0.01 else f"{value:.4f}"  # a learning rate would be 0.0000


class Throughput(Callback):
    """Logs `train/sequences_per_second`, over all devices, once per epoch; validation is not counted.

    If an epoch was resumed, only the part after that counts.
    """

    def __init__(self) -> None:
        self._start = 0.0
        self._seconds = 0.0
        self._sequences = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start. Lightning does not call `on_train_epoch_start` if a run is resumed within an epoch."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start again."""
        self._start, self._sequences = time.perf_counter(), 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._start -= time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restart the clock."""
        self._start += time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SequenceBatch,
        batch_idx: int,
    ) -> None:
        """Count the batch."""
        self._sequences += len(batch.label)
        self._seconds = time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the speed, up to the last batch."""
        if self._sequences:
            rate = self._sequences * trainer.world_size / self._seconds
            pl_module.log("train/sequences_per_second", rate, sync_dist=True)
