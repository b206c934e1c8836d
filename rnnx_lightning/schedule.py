"""The optimiser and its schedule, the number of steps of a run, and what both keep when a run is resumed.

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
    """Adam with a learning rate, fused: one kernel updates all parameters."""
    return {"class_path": "torch.optim.Adam", "init_args": {"lr": lr, "fused": True}}


ADAM = adam(2e-4)
ONE_CYCLE: Described = {"class_path": "rnnx_lightning.schedule.OneCycle"}


class OneCycle(OneCycleLR):
    """Warms up to the optimiser's learning rate, then anneals to nearly 0 [Smith & Topin 2018].

    Momentum, if the optimiser has it, changes in the opposite direction, from 0.95 to 0.85 and back.

    Args:
        optimizer: its learning rate is the highest one of the cycle.
        total_steps: number of steps of the cycle; null: the steps of the run.
        pct_start: share of the steps that warm up, between 0 and 1.
        div_factor: the first learning rate is the highest one divided by this.
        final_div_factor: the last learning rate is the first one divided by this.
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
    """Whether both name the same class. A class that cannot be imported is not the same as any other."""
    if one is None or other is None:
        return one is other
    try:
        return class_of(one) is class_of(other)
    except (ImportError, AttributeError):
        return False


def lacks_total_steps(schedule: Described) -> bool:
    """Whether a schedule has an argument `total_steps`, and it is left out."""
    if "total_steps" not in inspect.signature(class_of(schedule)).parameters:
        return False
    arguments = schedule.get("init_args", {})
    return arguments.get("total_steps") is None and arguments.get("epochs") is None


def make_optimizer(
    parameters: Iterable[nn.Parameter], optimizer: Described, schedule: Described | None, steps: int | None
) -> tuple[Optimizer, LRScheduler | None]:
    """Create an optimiser of parameters, and its schedule over a number of steps."""
    made: Optimizer = class_of(optimizer)(parameters, **optimizer.get("init_args", {}))
    if schedule is None:
        return made, None
    arguments = dict(schedule.get("init_args", {}))
    if lacks_total_steps(schedule):
        arguments["total_steps"] = steps
    return made, class_of(schedule)(made, **arguments)


def changes_each_step(schedule: LRScheduler) -> bool:
    """Whether a schedule changes after each step, as cycles do; others change after each epoch."""
    return isinstance(schedule, OneCycleLR | CyclicLR)


def monitor_the_same(one: Described | None, other: Described | None) -> bool:
    """Whether both are a `ReduceLROnPlateau` that monitors the same value."""
    if (
        one is None
        or other is None
        or not same_class(one, other)
        or not issubclass(class_of(one), ReduceLROnPlateau)
    ):
        return False
    first, second = (part.get("init_args", {}) for part in (one, other))
    return all(first.get(key) == second.get(key) for key in ("monitor", "mode"))


def keep_measurements(schedule: ReduceLROnPlateau, asked: LRScheduler) -> None:
    """Give a schedule the options of another one; it keeps what it has measured."""
    measured = {
        key: getattr(schedule, key) for key in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
    }
    schedule.load_state_dict(asked.state_dict() | measured)


def advance(schedule: LRScheduler, times: int) -> None:
    """Update a schedule, and so its optimiser's learning rate, a number of times."""
    with warnings.catch_warnings(action="ignore"):  # torch warns, because this optimiser has made no step
        for _ in range(times):
            schedule.step()


def copy_settings(optimizer: Optimizer, asked: Optimizer) -> None:
    """Give an optimiser the settings of another one with the same parameters; it keeps its moments."""
    for group, new in zip(optimizer.param_groups, asked.param_groups, strict=True):
        parameters = group["params"]
        group.clear()
        group.update(new, params=parameters)


def total_steps_of(trainer: Trainer) -> int | None:
    """Optimiser steps of the whole run, including those before a resume; None if the run has no end.

    Before a resume, the batch size may have been different, and an epoch may have been cut short. So this is the
    number of steps made plus the number of steps left.
    """
    total = trainer.estimated_stepping_batches  # this also sets up the loader, which is needed below
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
