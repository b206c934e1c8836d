"""Predictions for the test sequences, as a table."""

import csv
from collections.abc import Sequence
from itertools import chain, count
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from rich.console import Console
from torch import Tensor

from rnnx_lightning.callbacks.folder import beside, run_folder
from rnnx_lightning.files import written_whole


class PredictionTable(BasePredictionWriter):
    """Writes `predictions.csv` into the run's folder: one row per test sequence, in order.

    Rank 0 writes the predictions of all ranks after the last batch. Nothing is overwritten: if there is a
    `predictions.csv`, the table is called `predictions-2.csv`, and so on.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[dict[str, Tensor]],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gather the rows of all ranks, and write them.

        Args:
            trainer: the trainer.
            pl_module: the classifier.
            predictions: for each batch of this rank, tensors (B,) by column.
            batch_indices: not used, as Lightning does not know them. Rank r of W has sequences r, r + W, ...
        """
        folder = run_folder(trainer)  # every rank must ask, as for gathering below
        names = list(predictions[0]) if predictions else []
        columns = [torch.cat([batch[name] for batch in predictions]).tolist() for name in names]
        rows: list[Any] = list(zip(count(trainer.global_rank, trainer.world_size), *columns, strict=False))
        if trainer.world_size > 1:
            parts: list[list[Any]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, rows)
            rows = sorted(chain.from_iterable(parts))
        if folder is None or not trainer.is_global_zero:
            return
        path = beside(folder / "predictions.csv")
        with written_whole(path) as unfinished, unfinished.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["sequence", *names])
            writer.writerows(rows)
        Console().print(f"Predictions: {path}", soft_wrap=True)
