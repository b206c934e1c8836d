"""Stopping a run on request, so that it can go on."""

import signal
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rnnx_lightning.callbacks.keeping import last_checkpoint


class InterruptedRunError(Exception):
    """A run was asked to stop, and has saved what it needs to go on.

    Attributes:
        exit_code: 128 + the signal's number, as shells expect it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class GracefulStop(Callback):
    """On SIGTERM or Ctrl-C: finish the step, save `last.ckpt`, and say how to go on.

    Where a validation follows the step, it comes first: a run that is resumed would not make up for it, and would
    count the training metrics of an epoch that was stopped at its last step in the next one. Several ranks must
    stop at the same step. Asking one another waits for their devices, so they do it only now and then.

    Args:
        every: steps between two such questions.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self._received: int | None = None
        self._before: dict[int, Any] = {}
        self._epoch_saved = False  # and nothing is to follow it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen."""

        def receive(number: int, frame: FrameType | None) -> None:
            self._received = number

        self._before = {number: signal.signal(number, receive) for number in self.SIGNALS}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop between two steps."""
        if trainer.world_size > 1 and batch_idx % self.every:
            return
        if self._saved_if_asked(trainer, unless=_epoch_ends_or_validation_follows(trainer)):
            raise self._stopped(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where the next epoch can begin; what this one has logged is written only after it."""
        self._epoch_saved = self._saved_if_asked(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs."""
        if self._epoch_saved:
            raise self._stopped(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before the test, or listen no more."""
        self._stop_listening()
        if self._epoch_saved:
            raise self._stopped(trainer)

    def _saved_if_asked(self, trainer: Trainer, unless: bool = False) -> bool:
        asked = self._received is not None and not unless  # a clock may say so on one rank, and not on another
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            trainer.save_checkpoint(last_checkpoint(trainer), weights_only=False)  # all that it takes to go on
        return asked

    def _stopped(self, trainer: Trainer) -> InterruptedRunError:
        number = self._received or signal.SIGTERM
        message = f"stopped by {signal.Signals(number).name} after step {trainer.global_step}"
        if trainer.is_global_zero:
            message += f"; saved {last_checkpoint(trainer)}\nGo on with the same command and --ckpt_path last"
        else:
            message += f", rank {trainer.global_rank}"
        return InterruptedRunError(message, exit_code=128 + number)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._stop_listening()

    def _stop_listening(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _epoch_ends_or_validation_follows(trainer: Trainer) -> bool:
    """After a training batch; Lightning is asked as it will ask itself, which it offers no public way to do."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None  # there was a batch
    return trainer.is_last_batch or loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
