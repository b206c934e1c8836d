"""Refusing a loss that is NaN or infinite."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rnnx_lightning.callbacks.keeping import last_checkpoint


class NonFiniteLossError(Exception):
    """The loss became NaN or infinite."""


class FiniteLoss(Callback):
    """Stops a run whose loss is NaN or infinite, before a checkpoint of it is written.

    Losses stay on the device. They are checked, which waits for the device, every few steps, before each
    validation, and before each checkpoint.

    Args:
        every: number of steps between two checks.
    """

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self._losses: list[tuple[int, Tensor]] = []  # with their steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss; check now and then."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self._losses.append((trainer.global_step, loss.detach()))
        if len(self._losses) >= self.every or trainer.is_last_batch:
            self._check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before the network is validated."""
        self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check before a checkpoint is written."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        kept, self._losses = self._losses, []
        if not kept:
            return
        finite = torch.stack([loss for _, loss in kept]).isfinite().tolist()
        bad = [step for (step, _), good in zip(kept, finite, strict=True) if not good]
        if bad:
            raise NonFiniteLossError(
                f"the loss became NaN or infinite at step {bad[0]} (epoch {trainer.current_epoch + 1}); the "
                f"last good checkpoint is in {last_checkpoint(trainer).parent}. Lower optimizer.lr, or "
                "look for the cause with --trainer.detect_anomaly=true."
            )
