"""How a run goes on: plain lines where there is no terminal, and its speed."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from rnnx_lightning.data.loader import SequenceBatch


class EpochLines(Callback):
    """One plain line an epoch with all metrics, for log files."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock starts."""
        self._start = time.perf_counter()

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        metrics = "  ".join(f"{name} {float(value):.4f}" for name, value in trainer.callback_metrics.items())
        elapsed = time.perf_counter() - self._start
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {elapsed:.0f} s  {metrics}", flush=True)


class Throughput(Callback):
    """Logs `train/sequences_per_second`, over all devices, once an epoch; validation is not counted."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._batch_start = 0.0
        self._sequences = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew."""
        self._seconds, self._sequences = 0.0, 0
        self._batch_start = time.perf_counter()

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
        self._seconds = time.perf_counter() - self._batch_start
        if trainer.is_last_batch and self._seconds > 0:
            rate = self._sequences * trainer.world_size / self._seconds
            pl_module.log(
                "train/sequences_per_second", rate, on_step=False, on_epoch=True, sync_dist=True, batch_size=1
            )
