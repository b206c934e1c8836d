"""The LightningModule that trains any architecture on majority-sample sequences."""

import math
import sys
import warnings
from contextlib import ExitStack
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric, MetricCollection
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from rnnx_lightning.architectures import RecurrentNetwork
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.data.batches import SequenceBatch
from rnnx_lightning.relevance_loss import RelevanceLoss
from rnnx_lightning.schedule import (
    ADAM,
    ONE_CYCLE,
    advance,
    changes_each_step,
    class_of,
    copy_settings,
    keep_measurements,
    lacks_total_steps,
    make_optimizer,
    monitor_the_same,
    same_class,
    total_steps_of,
)


def rejection_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy over the logits and one constant 0, a "none of these" class that is never the target.

    It pushes the true logit above 0, so that there is positive relevance to explain [Cho18].

    Args:
        logits: (B, K).
        label: (B,) int64, 0 .. K - 1.

    Returns:
        The mean loss, a scalar.
    """
    return F.cross_entropy(F.pad(logits, (0, 1)), label)


def _metrics(stage: str, classes: int) -> MetricCollection:
    metrics: dict[str, Metric | MetricCollection] = {
        "loss": MeanMetric(nan_strategy="disable"),  # looking for NaN waits for the device; `FiniteLoss` does it
        "accuracy": MulticlassAccuracy(num_classes=classes, average="micro", validate_args=False),
    }
    return MetricCollection(metrics, prefix=f"{stage}/", compute_groups=False)


class SequenceClassifier(L.LightningModule):
    """Trains a network to name the majority class of a sequence.

    Args:
        network: maps pictures (B, 1, 28, W) in [-1, 1] to logits (B, classes). A `RecurrentNetwork` encodes each
            distinct image of a batch once; any other module is given the assembled pictures.
        optimizer: `class_path` and `init_args` of the optimiser, one of torch's or your own.
        lr_scheduler: the same for its schedule. If the schedule has an argument `total_steps` that is left out, it
            is set to the steps of the whole run. None: the learning rate is constant, as published.
        classes: number of classes.
        relevance_loss: added to the classification loss in training; `train/loss` is logged without it.
        logit_cost: the same for this times the sum of the absolute logits, in the mean over the batch; 0: none.
            It keeps a network that adds up evidence from adding what it does not need (docs/designing.md).

    Raises:
        ValueError: the learning rate, the number of classes or the cost is out of range; later: the data have
            another number of classes, or the network does not return logits (B, classes).
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: dict[str, Any] = ADAM,
        lr_scheduler: dict[str, Any] | None = ONE_CYCLE,
        classes: int = 10,
        relevance_loss: RelevanceLoss | None = None,
        logit_cost: float = 0.0,
    ) -> None:
        super().__init__()
        if not optimizer:
            raise ValueError("optimizer: no class is given; leave the option out for Adam")
        rate = optimizer.get("init_args", {}).get("lr", 1.0)
        if not 0 < rate < math.inf:
            raise ValueError(f"optimizer.lr={rate} must be positive and finite")
        if classes < 2:
            raise ValueError(f"classes={classes} must be at least 2")
        if not 0 <= logit_cost < math.inf:
            raise ValueError(f"logit_cost={logit_cost} must be finite and not negative")
        # On the command line, arguments are class paths and numbers. Modules given in Python are not stored.
        with warnings.catch_warnings(action="ignore"):
            self.save_hyperparameters(logger=False)
        for name, made in (("network", nn.Module), ("relevance_loss", RelevanceLoss)):
            if isinstance(self.hparams.get(name), made):
                del self.hparams[name]
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        # Of the run that is resumed: the learning rate, if its ReduceLROnPlateau continues, and `total_steps`.
        self.rate_before: float | None = None
        self.steps_before: int | None = None
        self.classes = classes
        self.relevance_loss = relevance_loss
        self.logit_cost = logit_cost
        self.train_metrics = _metrics("train", classes)
        self.val_metrics = _metrics("val", classes)
        self.test_metrics = _metrics("test", classes)
        self.train_metrics.persistent(True)  # a run may be resumed in the middle of an epoch

    def setup(self, stage: str) -> None:
        """Refuse data with another number of classes; set the example for which the summary counts operations."""
        data = getattr(self.trainer, "datamodule", None)
        names = getattr(data, "class_names", None)
        if names is not None and len(names) != self.classes:
            raise ValueError(
                f"model.classes={self.classes}, but the data have {len(names)} classes: set model.classes to that"
            )
        if isinstance(data, MajoritySequences):
            self.example_input_array = torch.zeros(1, *data.picture_shape)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 28, W) in [-1, 1] to logits (B, classes)."""
        return self.network(image.clone())  # a network may overwrite its input

    def logits(self, batch: SequenceBatch) -> Tensor:
        """Logits (B, classes) of a batch; a `RecurrentNetwork` encodes each distinct image once."""
        network = self.network
        if isinstance(network, RecurrentNetwork) and batch.distinct.shape[-1] % network.columns == 0:
            return network(batch.distinct, batch.order)
        return network(batch.image)

    def _step(self, batch: SequenceBatch, metrics: MetricCollection) -> tuple[Tensor, Tensor]:
        logits = self.logits(batch)
        if logits.shape != (len(batch.label), self.classes):
            raise ValueError(
                f"{type(self.network).__name__} gives {tuple(logits.shape)} for a batch of {len(batch.label)} "
                f"sequences of {self.classes} classes: it must give logits (batch, classes); "
                "check model.network.init_args"
            )
        loss = rejection_cross_entropy(logits, batch.label)
        # Repeated, not weighted: torchmetrics 1.9 drops the weights if nan_strategy is "disable".
        metrics["loss"].update(loss.detach().expand(len(batch.label)))
        metrics["accuracy"].update(logits.detach(), batch.label)
        return loss, logits

    def _log(self, metrics: MetricCollection) -> None:
        """Log metrics once per epoch. At each step, it would take a tenth of a small network's training time."""
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=1)

    def on_train_batch_start(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Reset the metrics at the first batch of an epoch. A run that is resumed later in an epoch keeps them."""
        if batch_idx == 0:
            self.train_metrics.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the training metrics of all ranks, added up; Lightning would save those of rank 0."""
        with ExitStack() as synchronised:
            for metric in self.train_metrics.values():
                synchronised.enter_context(metric.sync_context())
            checkpoint["state_dict"] |= self.train_metrics.state_dict(prefix="train_metrics.")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remove from the checkpoint what a resumed run must not restore.

        Rank 0 restores the training metrics, which were added up over all ranks; the others start at zero. A
        different optimiser starts without moments. A new schedule is created (`on_train_start`), except a
        `ReduceLROnPlateau` that monitors the same value as before.
        """
        for key, value in self.train_metrics.state_dict(prefix="train_metrics.").items():
            if self.global_rank > 0 or key not in checkpoint["state_dict"]:
                checkpoint["state_dict"][key] = value
        before = checkpoint.get("hyper_parameters", {})
        if not same_class(before.get("optimizer", ADAM), self.optimizer) and "optimizer_states" in checkpoint:
            checkpoint["optimizer_states"] = []
        schedules = checkpoint.get("lr_schedulers", [])
        self.steps_before = next((state.get("total_steps") for state in schedules), None)
        self.rate_before = None
        if schedules and monitor_the_same(before.get("lr_scheduler"), self.lr_scheduler):
            self.rate_before = before["optimizer"]["init_args"]["lr"]
        elif schedules:
            checkpoint["lr_schedulers"] = []

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss, logits = self._step(batch, self.train_metrics)
        if self.logit_cost:
            loss = loss + self.logit_cost * logits.abs().sum(dim=1).mean()
        if self.relevance_loss is not None:
            loss = loss + self.relevance_loss(self.network, batch.image, batch.label, batch.majority)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: SequenceBatch, batch_idx: int) -> None:
        """Log the training metrics at the end of an epoch or of the run."""
        trainer = self.trainer
        if trainer.is_last_batch or trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step:
            self._log(self.train_metrics)

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Updates the validation metrics; returns the logits for callbacks."""
        return self._step(batch, self.val_metrics)[1]

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log(self.val_metrics)

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Updates the test metrics; returns the logits for callbacks."""
        return self._step(batch, self.test_metrics)[1]

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log(self.test_metrics)

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> dict[str, Tensor]:
        """Prediction, its probability among the classes, and the label, each (B,)."""
        probability, prediction = self.logits(batch).softmax(dim=1).max(dim=1)
        return {"prediction": prediction, "probability": probability, "label": batch.label}

    def configure_optimizers(self) -> Any:
        """The optimiser and its schedule, which is updated after each batch (cycles) or epoch (all others).

        A `ReduceLROnPlateau` is updated by `on_train_epoch_end`. Lightning would do so after checkpoints are
        written, and not at the end of an epoch that was resumed.

        Raises:
            ValueError: a `ReduceLROnPlateau` has no `monitor`.
        """
        optimizer, schedule = self._make_optimizer()
        if schedule is None:
            return optimizer
        if isinstance(schedule, ReduceLROnPlateau) and not hasattr(schedule, "monitor"):
            raise ValueError(
                "lr_scheduler: torch's ReduceLROnPlateau has no option for what it monitors, Lightning's has: "
                "--lr_scheduler lightning.pytorch.cli.ReduceLROnPlateau --lr_scheduler.monitor val/loss"
            )
        scheduled = {
            "scheduler": schedule,
            "interval": "step" if changes_each_step(schedule) else "epoch",
            "monitor": getattr(schedule, "monitor", None),
            "frequency": sys.maxsize if isinstance(schedule, ReduceLROnPlateau) else 1,
        }
        return {"optimizer": optimizer, "lr_scheduler": scheduled}

    def on_train_epoch_end(self) -> None:
        """Update a `ReduceLROnPlateau`, if there has been a validation.

        Raises:
            ValueError: the value that it monitors is not logged.
        """
        schedule: Any = self.lr_schedulers()
        if not isinstance(schedule, ReduceLROnPlateau):
            return
        name, measured = schedule.monitor, self.trainer.callback_metrics  # type: ignore[attr-defined]
        if name in measured:
            schedule.step(measured[name])
        elif any(key.startswith("val/") for key in measured):
            raise ValueError(f"lr_scheduler.monitor={name} is not among {', '.join(sorted(measured))}")

    def on_train_start(self) -> None:
        """Give a resumed run the optimiser settings and the schedule of its configuration, at the step reached.

        Lightning has restored the optimiser's moments, which are kept, and its old settings, which are replaced. A
        `ReduceLROnPlateau` keeps what it has measured, and by how much it has reduced the learning rate.
        """
        if self.trainer.global_step == 0:
            return
        optimizer, schedule = self._make_optimizer()
        running: Any = self.optimizers(use_pl_optimizer=False)
        reduced = [group["lr"] for group in running.param_groups]
        if schedule is not None:
            following: Any = self.lr_schedulers()
            if self.rate_before is None:
                advance(schedule, self._updates_so_far(schedule))
                following.load_state_dict(schedule.state_dict())
            else:
                keep_measurements(following, schedule)
        copy_settings(running, optimizer)
        for group, rate in zip(running.param_groups, reduced, strict=True) if self.rate_before else ():
            group["lr"] = rate if group["lr"] == self.rate_before else group["lr"] * rate / self.rate_before

    def _updates_so_far(self, schedule: LRScheduler) -> int:
        """How many updates a schedule would have had so far; 0 if they depend on measured values."""
        loop: Any = self.trainer.fit_loop
        if isinstance(schedule, ReduceLROnPlateau):
            return 0
        return self.trainer.global_step if changes_each_step(schedule) else loop.epoch_progress.current.processed

    def _make_optimizer(self) -> tuple[Optimizer, LRScheduler | None]:
        return make_optimizer(self.network.parameters(), self.optimizer, self.lr_scheduler, self.total_steps)

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run, including those before a resume; None if the schedule does not need them.

        Raises:
            ValueError: the schedule needs an end, and the run has none.
        """
        if self.lr_scheduler is None or not lacks_total_steps(self.lr_scheduler):
            return None
        trainer = self.trainer
        if (steps := total_steps_of(trainer)) is None:
            raise ValueError(
                f"lr_scheduler={class_of(self.lr_scheduler).__name__} needs an end, but "
                f"trainer.max_epochs={trainer.max_epochs} and trainer.max_steps={trainer.max_steps} set none: set "
                "one of them, or --lr_scheduler null, which keeps the learning rate constant"
            )
        return steps
