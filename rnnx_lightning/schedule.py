"""How far a learning rate's schedule reaches, and how a run that is resumed follows what is asked for now."""

import math
import warnings
from typing import Any

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(optimizer: Optimizer, learning_rate: float, total_steps: int, step: int = 0) -> OneCycleLR:
    """The schedule at a step; sets the optimiser's learning rate and momentum."""
    schedule = OneCycleLR(optimizer, max_lr=learning_rate, total_steps=total_steps)
    if step > 0:
        schedule.last_epoch = step - 1
        with warnings.catch_warnings(action="ignore"):  # this optimiser has made no step itself
            schedule.step()
    return schedule


def take_settings(optimizer: Optimizer, asked: Optimizer) -> None:
    """Give an optimiser the settings of another one with the same parameters; its moments stay."""
    for group, anew in zip(optimizer.param_groups, asked.param_groups, strict=True):
        parameters = group["params"]
        group.clear()
        group.update(anew, params=parameters)


def steps_in_all(trainer: Trainer) -> int | None:
    """Optimiser steps of a run from its first one to its last, those before a resume included; None: no end.

    Steps before a resume may have been of another batch size, and an epoch cut short: what is left is counted.
    """
    total = trainer.estimated_stepping_batches  # sets up the loader, too
    if not 0 < total < math.inf:
        return None
    if trainer.max_epochs in (None, -1) or trainer.num_training_batches == math.inf:
        return int(total)
    loop: Any = trainer.fit_loop
    epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
    of_an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    done = math.ceil(batches.ready / trainer.accumulate_grad_batches) if epochs.processed < epochs.ready else 0
    left = (max(loop.max_epochs, 1) - epochs.processed) * of_an_epoch - min(done, of_an_epoch)
    steps = trainer.global_step + left
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
