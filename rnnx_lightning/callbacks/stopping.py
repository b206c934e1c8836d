"""Stopping a run on request, so that it can be resumed."""

import os
import signal
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from rnnx_lightning.callbacks.keeping import last_checkpoint

STDERR = 2  # the number of its file


class InterruptedRunError(Exception):
    """A run was asked to stop, and has saved what is needed to resume it.

    Attributes:
        exit_code: 128 + the number of the signal, as is usual in shells.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def unfinished(trainer: Trainer, number: int) -> InterruptedRunError:
    """The error of a test, prediction or validation that a signal has stopped."""
    assert trainer.state.fn is not None  # it runs
    name = trainer.state.fn.value
    message = f"{name} was stopped by {signal.Signals(number).name}"
    if trainer.is_global_zero:
        message += f", so its results are missing\nTo repeat it: rnnx {name} with the same configuration"
        if start := trainer.ckpt_path or ("last" if trainer.global_step else None):  # else with random weights
            message += f" and --ckpt_path {start}"
    else:
        message += f", rank {trainer.global_rank}"
    return InterruptedRunError(message, exit_code=128 + number)


class GracefulStop(Callback):
    """On SIGTERM or Ctrl-C, say so, finish the step, save `last.ckpt`, and print how to resume.

    A validation that is due after the step is done first. A resumed run would leave it out; and if the epoch had
    been stopped at its last step, its training metrics would be counted in the next epoch. All ranks stop at the
    same step. They agree on it only every few steps, because this waits for the devices.

    A test, prediction or validation of its own ends after the batch, and says how to repeat it. Its ranks agree
    every few batches, too.

    Args:
        every: number of steps or batches between two such agreements.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self._received: int | None = None
        self._before: dict[int, Any] = {}
        self._batches = 0  # of the test, prediction or validation that runs
        self._common_batches = 0.0  # how many of them all ranks have
        self._epoch_saved = False  # a checkpoint was saved at the end of an epoch, and the run is to stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers."""
        self._install_handlers(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after a step within an epoch."""
        if trainer.world_size > 1 and batch_idx % self.every:
            return
        if self._saved_if_asked(trainer, unless=_epoch_ends_or_validation_follows(trainer)):
            raise self._stopped(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at the end of an epoch, but stop later: Lightning has not written the epoch's logs yet."""
        self._epoch_saved = self._saved_if_asked(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs."""
        if self._epoch_saved:
            raise self._stopped(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the signal handlers; stop before the test."""
        self._remove_handlers()
        if self._epoch_saved:
            raise self._stopped(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers, if it is not a part of a training."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._install_handlers(trainer)
            self._batches, self._common_batches = 0, _batches_of_all_ranks(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop after a batch, if it is not a part of a training."""
        if trainer.state.fn == TrainerFn.FITTING:
            return
        self._batches += 1
        if self._batches > self._common_batches:  # another rank has none left, and would not answer
            return
        if trainer.world_size > 1 and self._batches % self.every and self._batches < self._common_batches:
            return
        if _agreed(trainer, self._received is not None):
            raise unfinished(trainer, self._received or signal.SIGTERM)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the signal handlers."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._remove_handlers()

    on_test_start = on_predict_start = on_validation_start
    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]  # it takes any arguments
    on_predict_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_test_end = on_predict_end = on_validation_end

    def _saved_if_asked(self, trainer: Trainer, unless: bool = False) -> bool:
        asked = self._received is not None and not unless  # ranks may differ in `unless`, if it depends on a clock
        if asked := _agreed(trainer, asked):
            trainer.save_checkpoint(last_checkpoint(trainer), weights_only=False)  # all that is needed to resume
        return asked

    def _stopped(self, trainer: Trainer) -> InterruptedRunError:
        number = self._received or signal.SIGTERM
        message = f"stopped by {signal.Signals(number).name} after step {trainer.global_step}"
        if trainer.is_global_zero:
            message += f"; saved {last_checkpoint(trainer)}\nTo resume: the same command with --ckpt_path last"
        else:
            message += f", rank {trainer.global_rank}"
        return InterruptedRunError(message, exit_code=128 + number)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the signal handlers."""
        self._remove_handlers()

    def _install_handlers(self, trainer: Trainer) -> None:
        def receive(number: int, frame: FrameType | None) -> None:
            if self._received is None and trainer.is_global_zero:
                # Not by `print`, which the signal may have interrupted.
                os.write(STDERR, f"\nrnnx: {signal.Signals(number).name}: {_what_stops(trainer)}\n".encode())
            self._received = number

        self._before = {number: signal.signal(number, receive) for number in self.SIGNALS}

    def _remove_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _what_stops(trainer: Trainer) -> str:
    """What stops, and when, after a signal that comes now."""
    assert trainer.state.fn is not None  # it runs
    if trainer.state.fn != TrainerFn.FITTING:
        return f"{trainer.state.fn.value} stops after this batch"
    return "fit stops after this " + (
        "validation" if trainer.validating else "step, or the validation that follows"
    )


def _agreed(trainer: Trainer, asked: bool) -> bool:
    """Whether any rank is asked to stop."""
    return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked


def _batches_of_all_ranks(trainer: Trainer) -> float:
    """How many batches of a test, prediction or validation every rank has. Some ranks may have one more."""
    counts = {
        TrainerFn.VALIDATING: trainer.num_val_batches,
        TrainerFn.TESTING: trainer.num_test_batches,
        TrainerFn.PREDICTING: trainer.num_predict_batches,
    }
    assert trainer.state.fn is not None  # it runs
    own = torch.tensor(float(sum(counts[trainer.state.fn])), device=trainer.strategy.root_device)
    return float(trainer.strategy.reduce(own, reduce_op="min"))


def _epoch_ends_or_validation_follows(trainer: Trainer) -> bool:
    """Whether the epoch ends, or Lightning will validate, after the current training batch."""
    # Lightning decides this in a private method of its loop, and has no public way to ask. A copy of its rules
    # (intervals by batch, by epoch and by clock) would have to change whenever they do.
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None  # there was a batch
    return trainer.is_last_batch or loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
