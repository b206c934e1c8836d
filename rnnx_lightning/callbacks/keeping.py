"""Which checkpoints are kept: the best ones, and always the last one."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class BestAndLast(ModelCheckpoint):
    """Lightning's checkpoints, and `last.ckpt`, from which a run can be resumed.

    Lightning writes `last.ckpt` only together with another checkpoint: if a score is monitored, only when it is
    the best so far. Here it is written after each epoch, and whenever `every_n_train_steps` or
    `train_time_interval` ask for a checkpoint. It is always complete, also with `save_weights_only`.

    Args:
        save_last: keep `last.ckpt`; false: a run that is killed cannot be resumed.
        **kwargs: arguments of Lightning's `ModelCheckpoint`, for all other checkpoints.
    """

    def __init__(self, *, save_last: bool = True, **kwargs: Any) -> None:
        super().__init__(save_last=False, **kwargs)
        self.keeps_last = save_last
        self._last_step = 0
        self._every = kwargs.get("every_n_train_steps") or 0

    @property
    def state_key(self) -> str:
        """Only what is monitored, so that a run resumed with another interval still knows its best score."""
        return f"{type(self).__qualname__}({self.mode} {self.monitor})"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep checkpoints within an epoch. Lightning waits for a monitored score; `last.ckpt` does not."""
        # `_last_time_checked` is private, but no hook says when `train_time_interval` asks for a checkpoint. All
        # ranks agree on it.
        checked = self._last_time_checked
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        step = trainer.global_step
        due = (self._every > 0 and step % self._every == 0) or self._last_time_checked != checked
        if due and step != self._last_step:  # not again while gradients are accumulated
            self._keep_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the best checkpoint, then the last one, which contains the path of the best."""
        super().on_train_epoch_end(trainer, pl_module)
        self._keep_last(trainer)

    def _keep_last(self, trainer: Trainer) -> None:
        if self.keeps_last and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._last_step = trainer.global_step
            self.last_model_path = str(last_checkpoint(trainer))
            trainer.save_checkpoint(self.last_model_path, weights_only=False)


def best_and_last(trainer: Trainer) -> ModelCheckpoint | None:
    """The callback that keeps the best and the last checkpoint; others that a user has added keep further ones."""
    found = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    return min(found, key=lambda callback: not isinstance(callback, BestAndLast), default=None)


def last_checkpoint(trainer: Trainer) -> Path:
    """Where the run keeps its last checkpoint."""
    callback = best_and_last(trainer)
    folder = None if callback is None else callback.dirpath
    return Path(folder or trainer.default_root_dir) / "last.ckpt"
