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
    class_of,
    follows_steps,
    go_on_measuring,
    make,
    measures_the_same,
    same_class,
    steps_in_all,
    take_settings,
    wants_steps,
)


def rejection_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy over the logits and one constant 0, a "none of these" class that is never the target.

    It pushes the true logit above 0, so that there is positive relevance to explain (thesis, section 2).

    Args:
        logits: (B, K).
        label: (B,) int64, 0 .. K - 1.

    Returns:
        The mean loss, a scalar.
    """
    return F.cross_entropy(F.pad(logits, (0, 1)), label)


def _metrics(stage: str, classes: int) -> MetricCollection:
    metrics: dict[str, Metric | MetricCollection] = {
        "loss": MeanMetric(nan_strategy="disable"),  # `FiniteLoss` looks, without waiting for the device
        "accuracy": MulticlassAccuracy(num_classes=classes, average="micro", validate_args=False),
    }
    return MetricCollection(metrics, prefix=f"{stage}/", compute_groups=False)


class SequenceClassifier(L.LightningModule):
    """Trains a network to name the majority class of a sequence.

    Args:
        network: maps pictures (B, 1, 28, W) in [-1, 1] to logits (B, classes). A `RecurrentNetwork` encodes each
            distinct image of a batch once; any other module is given the assembled pictures.
        optimizer: `class_path` and `init_args` of any of torch's, or of the user's own.
        lr_scheduler: the same of its schedule; one that takes `total_steps` is laid over the whole run where they
            are left out. None: the learning rate is constant, as published.
        classes: number of classes.
        relevance_loss: added to the classification loss while training, and not logged as part of `train/loss`.

    Raises:
        ValueError: learning rate or number of classes is out of range; later, if the data have another number of
            classes, or the network gives something else than (B, classes) logits.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: dict[str, Any] = ADAM,
        lr_scheduler: dict[str, Any] | None = ONE_CYCLE,
        classes: int = 10,
        relevance_loss: RelevanceLoss | None = None,
    ) -> None:
        super().__init__()
        if not optimizer:
            raise ValueError("optimizer: none is named; leave it out for Adam")
        rate = optimizer.get("init_args", {}).get("lr", 1.0)
        if not 0 < rate < math.inf:
            raise ValueError(f"optimizer.lr={rate} must be positive and finite")
        if classes < 2:
            raise ValueError(f"classes={classes} must be at least 2")
        # From the command line these are class paths and numbers; a module given in Python is not stored.
        with warnings.catch_warnings(action="ignore"):
            self.save_hyperparameters(logger=False)
        for name, made in (("network", nn.Module), ("relevance_loss", RelevanceLoss)):
            if isinstance(self.hparams.get(name), made):
                del self.hparams[name]
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.rate_before: float | None = None  # the highest, where a schedule goes on with what was measured
        self.steps_before: int | None = None
        self.classes = classes
        self.relevance_loss = relevance_loss
        self.train_metrics = _metrics("train", classes)
        self.val_metrics = _metrics("val", classes)
        self.test_metrics = _metrics("test", classes)
        self.train_metrics.persistent(True)  # what a run that is resumed has counted in its epoch so far

    def setup(self, stage: str) -> None:
        """Refuse data of another number of classes; learn what the summary is to count operations for."""
        data = getattr(self.trainer, "datamodule", None)
        names = getattr(data, "class_names", None)
        if names is not None and len(names) != self.classes:
            raise ValueError(
                f"model.classes={self.classes}, but the data have {len(names)} classes: let model.classes be that"
            )
        if isinstance(data, MajoritySequences):
            self.example_input_array = torch.zeros(1, *data.picture_shape)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 28, W) in [-1, 1] to logits (B, classes)."""
        return self.network(image)

    def logits(self, batch: SequenceBatch) -> Tensor:
        """(B, classes) of a batch; each distinct image is encoded once where the network can."""
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
                "look at model.network.init_args"
            )
        loss = rejection_cross_entropy(logits, batch.label)
        # Repeated, not weighted: torchmetrics 1.9 drops the weights where it does not look for NaN.
        metrics["loss"].update(loss.detach().expand(len(batch.label)))
        metrics["accuracy"].update(logits.detach(), batch.label)
        return loss, logits

    def _log(self, metrics: MetricCollection) -> None:
        """Log them for the epoch; doing so at each step would take a tenth of a small network's time."""
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=1)

    def on_train_batch_start(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Count from zero in each epoch; a run that is resumed in the middle of one goes on with another batch."""
        if batch_idx == 0:
            self.train_metrics.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what all ranks have counted in this epoch, not the first one alone."""
        with ExitStack() as synchronised:
            for metric in self.train_metrics.values():
                synchronised.enter_context(metric.sync_context())
            checkpoint["state_dict"] |= self.train_metrics.state_dict(prefix="train_metrics.")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let Lightning restore what a run goes on with.

        The first rank goes on with the counts; others, and a checkpoint without any, begin at zero. Another
        optimiser begins without moments. A schedule is laid out anew, unless it depends on what was measured.
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
        if schedules and measures_the_same(before.get("lr_scheduler"), self.lr_scheduler):
            self.rate_before = before["optimizer"]["init_args"]["lr"]
        elif schedules:
            checkpoint["lr_schedulers"] = []

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss = self._step(batch, self.train_metrics)[0]
        if self.relevance_loss is not None:
            loss = loss + self.relevance_loss(self.network, batch.image, batch.label, batch.majority)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: SequenceBatch, batch_idx: int) -> None:
        """Log the training metrics where an epoch ends, or the run."""
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
        """The optimiser with its schedule, stepped after each batch (cycles) or epoch (all others).

        One that depends on what is measured is stepped by `on_train_epoch_end`, not by Lightning, which does so
        after checkpoints are written, and not at all at the end of an epoch that was resumed.

        Raises:
            ValueError: it does not say what it depends on.
        """
        optimizer, schedule = self._made_anew()
        if schedule is None:
            return optimizer
        if isinstance(schedule, ReduceLROnPlateau) and not hasattr(schedule, "monitor"):
            raise ValueError(
                "lr_scheduler: torch's ReduceLROnPlateau does not say what it follows, Lightning's does: "
                "--lr_scheduler lightning.pytorch.cli.ReduceLROnPlateau --lr_scheduler.monitor val/loss"
            )
        scheduled = {
            "scheduler": schedule,
            "interval": "step" if follows_steps(schedule) else "epoch",
            "monitor": getattr(schedule, "monitor", None),
            "frequency": sys.maxsize if isinstance(schedule, ReduceLROnPlateau) else 1,
        }
        return {"optimizer": optimizer, "lr_scheduler": scheduled}

    def on_train_epoch_end(self) -> None:
        """Step a schedule that depends on what is measured, once there has been a validation.

        Raises:
            ValueError: there is no such value.
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
        """A run that is resumed follows optimiser and schedule that are asked for now, from where it is.

        Lightning has restored the optimiser's settings as they were, along with its moments, which stay. Of a
        schedule that depends on what is measured, what was measured stays, and by how much the rate was reduced.
        """
        if self.trainer.global_step == 0:
            return
        optimizer, schedule = self._made_anew()
        running: Any = self.optimizers(use_pl_optimizer=False)
        reduced = [group["lr"] for group in running.param_groups]
        if schedule is not None:
            following: Any = self.lr_schedulers()
            if self.rate_before is None:
                advance(schedule, self._times_stepped(schedule))
                following.load_state_dict(schedule.state_dict())
            else:
                go_on_measuring(following, schedule)
        take_settings(running, optimizer)
        for group, rate in zip(running.param_groups, reduced, strict=True) if self.rate_before else ():
            group["lr"] = rate if group["lr"] == self.rate_before else group["lr"] * rate / self.rate_before

    def _times_stepped(self, schedule: LRScheduler) -> int:
        """How often a schedule was stepped until here, as far as that can be told of one that begins only now."""
        loop: Any = self.trainer.fit_loop
        if isinstance(schedule, ReduceLROnPlateau):
            return 0
        return self.trainer.global_step if follows_steps(schedule) else loop.epoch_progress.current.processed

    def _made_anew(self) -> tuple[Optimizer, LRScheduler | None]:
        return make(self.network.parameters(), self.optimizer, self.lr_scheduler, self.total_steps)

    @property
    def total_steps(self) -> int | None:
        """Steps that the schedule is laid over, those before a resume included; None if it does not ask for them.

        Raises:
            ValueError: the schedule needs an end, and the run has none.
        """
        if self.lr_scheduler is None or not wants_steps(self.lr_scheduler):
            return None
        trainer = self.trainer
        if (steps := steps_in_all(trainer)) is None:
            raise ValueError(
                f"lr_scheduler={class_of(self.lr_scheduler).__name__} needs an end, but "
                f"trainer.max_epochs={trainer.max_epochs} and trainer.max_steps={trainer.max_steps} set none: set "
                "one of them, or --lr_scheduler null, which keeps the learning rate constant"
            )
        return steps
