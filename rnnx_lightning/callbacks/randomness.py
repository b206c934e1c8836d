"""Random numbers that are the same in a resumed run."""

import os
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from rnnx_lightning.seeding import seeded_generator


class StepRandomness(Callback):
    """Seeds torch before each training batch. The seed depends only on the run's seed, epoch, batch and rank.

    So a resumed run draws the same dropout masks as one that was never stopped, and the ranks of a
    distributed run draw different ones.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the seed."""
        run_seed = os.environ.get("PL_GLOBAL_SEED", "0")
        key = (run_seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        seed = seeded_generator("batch", *key).initial_seed()
        # Not torch.manual_seed: it keeps a formatted stack at every call for each kind of GPU that is not in use.
        torch.default_generator.manual_seed(seed)
        if (device := trainer.strategy.root_device).type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
