"""The LightningModule that trains any architecture on majority-sample sequences."""

import math
import warnings
from contextlib import ExitStack
from typing import Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics import Metric, MetricCollection
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from rnnx_lightning.architectures import RecurrentNetwork
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.data.loader import SequenceBatch
from rnnx_lightning.schedule import one_cycle, steps_in_all, take_settings


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
        learning_rate: Adam's, at its highest.
        schedule: "one_cycle" warms up and anneals to zero over the whole run; "constant" as published.
        classes: number of classes.

    Raises:
        ValueError: learning rate or number of classes is out of range; later, if the data have another number of
            classes, or the network gives something else than (B, classes) logits.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 2e-4,
        schedule: Literal["constant", "one_cycle"] = "one_cycle",
        classes: int = 10,
    ) -> None:
        super().__init__()
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate={learning_rate} must be positive and finite")
        if classes < 2:
            raise ValueError(f"classes={classes} must be at least 2")
        # From the command line these are class paths and numbers; a module given in Python is not stored.
        with warnings.catch_warnings(action="ignore"):
            self.save_hyperparameters(logger=False)
        if isinstance(self.hparams.get("network"), nn.Module):
            del self.hparams["network"]
        self.network = network
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.classes = classes
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
        """The first rank goes on with the counts; others, and a checkpoint without any, begin at zero."""
        for key, value in self.train_metrics.state_dict(prefix="train_metrics.").items():
            if self.global_rank > 0 or key not in checkpoint["state_dict"]:
                checkpoint["state_dict"][key] = value

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        return self._step(batch, self.train_metrics)[0]

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
        """Adam, with the schedule stepped after each batch."""
        optimizer, schedule = self._optimizer_at(0)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """A run that is resumed follows the schedule that is asked for now, from the step that it has reached.

        Lightning has restored learning rate and schedule as they were, along with Adam's moments, which stay.
        """
        if step := self.trainer.global_step:
            optimizer, schedule = self._optimizer_at(step)
            take_settings(self.optimizers(use_pl_optimizer=False), optimizer)  # type: ignore[arg-type]
            if schedule is not None:
                self.lr_schedulers().load_state_dict(schedule.state_dict())  # type: ignore[union-attr]

    def _optimizer_at(self, step: int) -> tuple[Optimizer, OneCycleLR | None]:
        """A new optimiser, set as it is to be at a step, and its schedule."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=self.learning_rate, fused=True)
        if (steps := self.total_steps) is None:
            return optimizer, None
        return optimizer, one_cycle(optimizer, self.learning_rate, steps, step)

    @property
    def total_steps(self) -> int | None:
        """Steps that the schedule is laid over, those before a resume included; None if it is constant.

        Raises:
            ValueError: the schedule needs an end, and the run has none.
        """
        if self.schedule == "constant":
            return None
        trainer = self.trainer
        if (steps := steps_in_all(trainer)) is None:
            raise ValueError(
                f"model.schedule={self.schedule} needs an end, but trainer.max_epochs={trainer.max_epochs} and "
                f"trainer.max_steps={trainer.max_steps} set none: set one of them, or --model.schedule constant"
            )
        return steps
