"""Resuming a run: counting epochs correctly, and printing what is kept and what is new."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console


class Resuming(Callback):
    """Continues with the next epoch after a finished one, also with `max_steps`; prints what is kept.

    With `max_steps`, Lightning always takes the last epoch of a checkpoint for unfinished. It would end a finished
    one again, and count it twice.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}
        self._moments = self._scheduled = False
        self._max_steps = -1

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the options that the checkpoint was trained with."""
        self._before = _options(
            checkpoint.get("hyper_parameters", {}), checkpoint.get("datamodule_hyper_parameters", {})
        )
        self._before["steps of the schedule"] = getattr(pl_module, "steps_before", None)
        # `SequenceClassifier` has removed what does not fit the present optimiser and schedule.
        self._moments, self._scheduled = (
            bool(checkpoint.get(key)) for key in ("optimizer_states", "lr_schedulers")
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let Lightning restore its loops as if there were no `max_steps`."""
        self._max_steps = trainer.max_steps
        if trainer.ckpt_path:
            trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore `max_steps`, and print how the run continues."""
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps
        if not trainer.ckpt_path:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        now = _options(pl_module.hparams, {} if data is None else data.hparams)
        now["steps of the schedule"] = getattr(pl_module, "total_steps", None)
        changed = [
            f"{key} {now[key]} (was {value})"
            for key, value in self._before.items()
            if now.get(key) is not None and value is not None and now[key] != value
        ]
        name = type(trainer.optimizers[0]).__name__
        schedule = "learning rate and schedule"
        kept = ["weights", f"{name}'s moments", "the position in the data", "the state of callbacks"]
        new = [f"{schedule}, over all steps from the first one on"]
        if not self._moments:
            new.append(f"{kept.pop(1)}, starting at 0")
        if self._scheduled:
            new = [f"{schedule}, reduced by as much as before"]
        if trainer.is_global_zero:
            Console().print(
                f"Resuming {trainer.ckpt_path} at step {trainer.global_step}\n"
                f"Kept: {', '.join(kept)}\n"
                f"From the configuration: {'; '.join(new)}\n"
                f"Changed: {', '.join(changed) or 'nothing'}",
                soft_wrap=True,
                markup=False,
            )


def _options(model: Any, data: Any) -> dict[str, Any]:
    """Options of model, optimiser, schedule and data, by their names on the command line."""
    options = {f"data.{key}": value for key, value in data.items()}
    for key, value in model.items():
        if key == "network":  # it must be the same (`check_same_network`)
            continue
        if key not in ("optimizer", "lr_scheduler"):
            options[f"model.{key}"] = value
        elif value is None:
            options[key] = "null"
        else:
            options[key] = value["class_path"].rpartition(".")[2]
            options |= {f"{key}.{name}": argument for name, argument in value.get("init_args", {}).items()}
    return options
