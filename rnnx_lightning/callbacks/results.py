"""What a run leaves at its end: a table on the screen, and `results.json`."""

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from rnnx_lightning import __version__
from rnnx_lightning.callbacks.folder import run_folder, tensorboards


class ResultTable(Callback):
    """Prints the results of `test` and `validate` and where they are; keeps them in a file of the run.

    Attributes:
        file: its name.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.file = "results.json"

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After `rnnx test`, and after the test that ends a fit."""
        self._show(trainer, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After `rnnx validate` only, not after each epoch of a fit."""
        if trainer.state.fn == "validate":
            self._show(trainer, "val")

    def _show(self, trainer: Trainer, stage: str) -> None:
        folder, metrics = run_folder(trainer), trainer.callback_metrics  # collectives: asked for on every rank
        if not trainer.is_global_zero:
            return
        results = {k: float(v) for k, v in metrics.items() if k.startswith(stage)}
        if folder is not None:
            content = {
                "results": results,
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                "seconds": round(time.perf_counter() - self._start, 1),
                "devices": f"{trainer.num_devices * trainer.num_nodes} x {trainer.strategy.root_device.type}",
                "versions": {
                    "rnnx": __version__,
                    "python": platform.python_version(),
                    **{name: version(name) for name in ("torch", "lightning", "torchmetrics")},
                },
            }
            write_json(folder / self.file, content)
        _print_results(results, folder, [logger.log_dir for logger in tensorboards(trainer)])


def write_json(path: Path, content: object) -> None:
    """Write a file in one move, so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(path)


def _print_results(results: dict[str, float], folder: Path | None, shown_in: list[str]) -> None:
    table = Table("result", title="Results", title_justify="left")
    table.add_column("value", justify="right")
    for name, value in results.items():
        table.add_row(name, f"{value:.4f}")
    console = Console()
    console.print(table)
    if folder is not None:
        console.print(f"Run: {folder}", soft_wrap=True)
    for place in shown_in:
        console.print(f"Look at it: tensorboard --logdir {place}", soft_wrap=True)
