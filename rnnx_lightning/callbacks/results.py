"""The table at the end of a run."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table


class ResultTable(Callback):
    """Prints the results of `test` and `validate`, the run's folder, and how to look at it."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After `rnnx test`, and after the test that ends a fit."""
        self._show(trainer, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After `rnnx validate` only, not after each epoch of a fit."""
        if trainer.state.fn == "validate":
            self._show(trainer, "val")

    @staticmethod
    def _show(trainer: Trainer, stage: str) -> None:
        folder = trainer.log_dir  # a collective: asked for on every rank
        _print_results({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(stage)}, folder)


@rank_zero_only
def _print_results(results: dict[str, float], folder: str | None) -> None:
    table = Table("result", title="Results", title_justify="left")
    table.add_column("value", justify="right")
    for name, value in results.items():
        table.add_row(name, f"{value:.4f}")
    console = Console()
    console.print(table)
    if folder:
        console.print(f"Run: {folder}\nLook at it: tensorboard --logdir {folder}", soft_wrap=True)
