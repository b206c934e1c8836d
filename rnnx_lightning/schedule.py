"""The optimiser and its schedule, how far a schedule reaches, and how a run that is resumed follows them.

Both are described as in YAML, `{"class_path": ..., "init_args": {...}}`: plain data that a checkpoint can hold.
"""

import inspect
import math
import warnings
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from lightning.pytorch import Trainer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

Described = dict[str, Any]


def adam(lr: float) -> Described:
    """Adam at a learning rate, with one kernel for all parameters."""
    return {"class_path": "torch.optim.Adam", "init_args": {"lr": lr, "fused": True}}


ADAM = adam(2e-4)
ONE_CYCLE: Described = {"class_path": "rnnx_lightning.schedule.OneCycle"}


class OneCycle(OneCycleLR):
    """Warms up to the optimiser's learning rate, then anneals to nearly 0 [Smith & Topin 2018].

    Momentum, where the optimiser has any, goes the other way, from 0.95 to 0.85 and back.

    Args:
        optimizer: with its highest learning rate.
        total_steps: of the cycle; null: those of the run.
        pct_start: part of them that warms up.
        div_factor: the first learning rate is so many times smaller than the highest.
        final_div_factor: the last one is so many times smaller than the first.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        groups = optimizer.param_groups
        super().__init__(
            optimizer,
            max_lr=[group["lr"] for group in groups],
            total_steps=total_steps,
            pct_start=pct_start,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            cycle_momentum=all(group.get("momentum") or "betas" in group for group in groups),
        )


def class_of(described: Described) -> Any:
    """The class that a description names."""
    module, _, name = described["class_path"].rpartition(".")
    return getattr(import_module(module), name)


def same_class(one: Described | None, other: Described | None) -> bool:
    """Whether both name the same class; one that cannot be found any more is another."""
    if one is None or other is None:
        return one is other
    try:
        return class_of(one) is class_of(other)
    except (ImportError, AttributeError):
        return False


def wants_steps(schedule: Described) -> bool:
    """Whether a schedule takes the number of the run's steps, `total_steps`, and it is left out."""
    if "total_steps" not in inspect.signature(class_of(schedule)).parameters:
        return False
    arguments = schedule.get("init_args", {})
    return arguments.get("total_steps") is None and arguments.get("epochs") is None


def make(
    parameters: Iterable[nn.Parameter], optimizer: Described, schedule: Described | None, steps: int | None
) -> tuple[Optimizer, LRScheduler | None]:
    """An optimiser of parameters, and its schedule over so many steps."""
    made: Optimizer = class_of(optimizer)(parameters, **optimizer.get("init_args", {}))
    if schedule is None:
        return made, None
    arguments = dict(schedule.get("init_args", {}))
    if wants_steps(schedule):
        arguments["total_steps"] = steps
    return made, class_of(schedule)(made, **arguments)


def follows_steps(schedule: LRScheduler) -> bool:
    """Whether a schedule changes after each step, as cycles do; others change after each epoch."""
    return isinstance(schedule, OneCycleLR | CyclicLR)


def follows_scores(schedule: Described | None) -> bool:
    """Whether a schedule depends on what is measured."""
    return schedule is not None and issubclass(class_of(schedule), ReduceLROnPlateau)


def advance(schedule: LRScheduler, times: int) -> None:
    """Bring a schedule, and its optimiser's learning rate, to where it is after so many steps or epochs."""
    with warnings.catch_warnings(action="ignore"):  # this optimiser has made no step itself
        for _ in range(times):
            schedule.step()


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
