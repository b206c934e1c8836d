"""How a run goes on from a checkpoint, and what it says of that: what is kept, and what is new."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console


class Resuming(Callback):
    """Goes on at the next epoch after one that was finished, also with `max_steps`; says what is kept.

    Where steps are counted, Lightning takes the last epoch for unfinished whatever it was, ends it a second time,
    and counts it twice.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}
        self._moments = self._scheduled = False
        self._max_steps = -1

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what the checkpoint was trained with."""
        self._before = _options(
            checkpoint.get("hyper_parameters", {}), checkpoint.get("datamodule_hyper_parameters", {})
        )
        self._before["steps of the schedule"] = getattr(pl_module, "steps_before", None)
        # The module has taken out what does not fit the optimiser and schedule that are asked for now.
        self._moments, self._scheduled = (
            bool(checkpoint.get(key)) for key in ("optimizer_states", "lr_schedulers")
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let Lightning restore its loops as where epochs are counted."""
        self._max_steps = trainer.max_steps
        if trainer.ckpt_path:
            trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count steps again, and say how the run goes on."""
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
        kept = ["weights", f"{name}'s moments", "the place in the data", "what callbacks have counted"]
        anew = [f"{schedule}, laid over all steps from the first one on"]
        if not self._moments:
            anew.append(f"{kept.pop(1)}, which begin at 0")
        if self._scheduled:
            anew = [f"{schedule}, reduced as it was by what was measured"]
        if trainer.is_global_zero:
            Console().print(
                f"Going on from {trainer.ckpt_path} at step {trainer.global_step}\n"
                f"Kept from it: {', '.join(kept)}\n"
                f"As asked for now: {'; '.join(anew)}\n"
                f"Changed: {', '.join(changed) or 'nothing'}",
                soft_wrap=True,
                markup=False,
            )


def _options(model: Any, data: Any) -> dict[str, Any]:
    """Of model, optimiser, schedule and data, by the names that they have on the command line."""
    options = {f"data.{key}": value for key, value in data.items()}
    for key, value in model.items():
        if key == "network":  # it is the same, or the weights would not fit
            continue
        if key not in ("optimizer", "lr_scheduler"):
            options[f"model.{key}"] = value
        elif value is None:
            options[key] = "null"
        else:
            options[key] = value["class_path"].rpartition(".")[2]
            options |= {f"{key}.{name}": argument for name, argument in value.get("init_args", {}).items()}
    return options
