"""The results of a run: a table on the screen, and `results.json`."""

import platform
import time
from importlib.metadata import version
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from rnnx_lightning import __version__
from rnnx_lightning.callbacks.folder import PICTURES, run_folder, tensorboards
from rnnx_lightning.files import write_json


class ResultTable(Callback):
    """Prints the results of `test` and `validate`, and writes them to a file in the run's folder.

    Attributes:
        file: the name of the file.
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
        folder, metrics = run_folder(trainer), trainer.callback_metrics  # may communicate, so every rank must ask
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


def _print_results(results: dict[str, float], folder: Path | None, shown_in: list[str]) -> None:
    """Print plain metrics in one table, and scores (`<stage>/<score>/<method>`) in another, one column each."""
    plain = Table("result", title="Results", title_justify="left")
    plain.add_column("value", justify="right")
    scores: dict[str, dict[str, float]] = {}
    for name, value in results.items():
        match name.split("/", 2):
            case [_, score, method]:
                scores.setdefault(score, {})[method] = value
            case _:
                plain.add_row(name, f"{value:.4f}")
    console = Console()
    console.print(plain)
    if scores:
        table = Table("method", title="Explanations", title_justify="left")
        for score in scores:
            table.add_column(score, justify="right")
        for method in dict.fromkeys(method for values in scores.values() for method in values):
            cells = (f"{values[method]:.4f}" if method in values else "" for values in scores.values())
            table.add_row(method, *cells)
        console.print(table)
    if folder is not None:
        console.print(f"Run: {folder}", soft_wrap=True)
        if (pictures := folder / PICTURES).is_dir():
            console.print(f"Pictures: {pictures}", soft_wrap=True)
    for place in shown_in:
        console.print(f"TensorBoard: tensorboard --logdir {place}", soft_wrap=True)
