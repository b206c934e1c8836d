"""What keeps a long run safe: stopping on request, refusing a loss that is no number, randomness that resumes."""

import os
import signal
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rnnx_lightning.callbacks.keeping import last_checkpoint
from rnnx_lightning.data.majority import seeded_generator


class InterruptedRunError(Exception):
    """A run was asked to stop, and has saved what it needs to go on.

    Attributes:
        exit_code: 128 + the signal's number, as shells expect it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NonFiniteLossError(Exception):
    """The loss became infinite or no number."""


class StepRandomness(Callback):
    """Seeds torch anew before each training batch, from the run's seed, epoch, batch and rank alone.

    So a run that is resumed draws the same dropout masks as one that was never stopped, and the ranks of a
    distributed run draw different ones.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed."""
        run_seed = os.environ.get("PL_GLOBAL_SEED", "0")
        key = (run_seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        seed = seeded_generator("batch", *key).initial_seed()
        # Not torch.manual_seed: it keeps a formatted stack at every call for each kind of GPU that is not in use.
        torch.default_generator.manual_seed(seed)
        if (device := trainer.strategy.root_device).type != "cpu":
            torch.get_device_module(device).manual_seed(seed)


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
        if _validation_follows(trainer, batch_idx) or (trainer.world_size > 1 and batch_idx % self.every):
            return
        if self._saved_if_asked(trainer):
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

    def _saved_if_asked(self, trainer: Trainer) -> bool:
        asked = self._received is not None
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


def _validation_follows(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a training batch is the last before a validation, or of its epoch; not where a clock decides."""
    whole_run = trainer.check_val_every_n_epoch is None
    number = trainer.fit_loop.total_batch_idx if whole_run else batch_idx
    every = trainer.val_check_batch
    return trainer.is_last_batch or (isinstance(every, int) and (number + 1) % every == 0)


class FiniteLoss(Callback):
    """Stops a run whose loss is infinite or no number, before a checkpoint of it is written.

    Losses are kept on the device, which is asked about them only every so many steps, before each validation, and
    before each checkpoint.

    Args:
        every: steps between two questions.
    """

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self._losses: list[tuple[int, Tensor]] = []  # with their steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss; ask now and then."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self._losses.append((trainer.global_step, loss.detach()))
        if len(self._losses) >= self.every or trainer.is_last_batch:
            self._ask(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask before the network is validated."""
        self._ask(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Ask before it is written."""
        self._ask(trainer)

    def _ask(self, trainer: Trainer) -> None:
        kept, self._losses = self._losses, []
        if not kept:
            return
        finite = torch.stack([loss for _, loss in kept]).isfinite().tolist()
        bad = [step for (step, _), good in zip(kept, finite, strict=True) if not good]
        if bad:
            raise NonFiniteLossError(
                f"the loss became infinite or no number at step {bad[0]} (epoch {trainer.current_epoch + 1}); the "
                f"last good checkpoint is in {last_checkpoint(trainer).parent}. Lower optimizer.lr, or "
                "look for it with --trainer.detect_anomaly=true."
            )
