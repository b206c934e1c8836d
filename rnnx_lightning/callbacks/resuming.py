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
        self._max_steps = -1

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what the checkpoint was trained with."""
        self._before = _options(
            checkpoint.get("hyper_parameters", {}), checkpoint.get("datamodule_hyper_parameters", {})
        )
        for schedule in checkpoint.get("lr_schedulers", []):
            self._before["steps of the schedule"] = schedule.get("total_steps")

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
            if now.get(key) is not None and now[key] != value
        ]
        if trainer.is_global_zero:
            Console().print(
                f"Going on from {trainer.ckpt_path} at step {trainer.global_step}\n"
                "Kept from it: weights, Adam's moments, the place in the data, what callbacks have counted\n"
                "As asked for now: learning rate and schedule, laid over all steps from the first one on\n"
                f"Changed: {', '.join(changed) or 'nothing'}",
                soft_wrap=True,
                markup=False,
            )


def _options(model: Any, data: Any) -> dict[str, Any]:
    """Of model and data, by the names that they have on the command line."""
    parts = {"model": model, "data": data}
    return {f"{part}.{key}": value for part, options in parts.items() for key, value in options.items()}
