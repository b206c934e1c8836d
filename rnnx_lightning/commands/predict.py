"""`rnnx predict`: what a network says of each test sequence, as a table."""

import csv
from itertools import chain, count
from typing import Any

import torch
from lightning.pytorch import Trainer
from rich.console import Console

from rnnx_lightning.callbacks.folder import beside, run_folder


def write_predictions(trainer: Trainer, batches: list[Any]) -> None:
    """Write `predictions.csv` into the run's folder, one row a test sequence, in their order.

    Every rank must call it; the first one writes what all of them have predicted.

    Args:
        trainer: that has predicted.
        batches: what `predict_step` gave for this rank's batches, tensors (B,) by column.
    """
    folder = run_folder(trainer)  # a collective, as the gathering below
    names = list(batches[0]) if batches else []
    columns = [torch.cat([batch[name] for batch in batches]).tolist() for name in names]
    numbers = count(trainer.global_rank, trainer.world_size)  # of the sequences that this rank was handed
    values = zip(*columns, strict=True)
    rows: list[Any] = [(number, *row) for number, row in zip(numbers, values, strict=False)]
    if trainer.world_size > 1:
        parts: list[list[Any]] = [[] for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(parts, rows)
        rows = sorted(chain.from_iterable(parts))
    if folder is None or not rows or not trainer.is_global_zero:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = beside(folder / "predictions.csv")
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sequence", *names])
        writer.writerows(rows)
    Console().print(f"Predictions: {path}")
