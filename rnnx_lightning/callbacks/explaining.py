"""Explanations while a network trains: scores and pictures after each validation, on the accelerator."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric

from rnnx_lightning.callbacks.evaluation import AfterEvaluation
from rnnx_lightning.callbacks.folder import tensorboards
from rnnx_lightning.callbacks.showing import show
from rnnx_lightning.data.batches import SequenceBatch
from rnnx_lightning.explain import Attributor, UnexplainableError
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.explained import ScoredMethods, default_scores
from rnnx_lightning.rendering.heatmaps import draw_heatmaps


class Explainability(AfterEvaluation):
    """Explains validation and test sequences: logs scores as `val/<score>/<method>`, and draws the first ones.

    The true class is explained. Checkpoints and early stopping can monitor the scores. Loggers that take pictures
    show them as `val/heatmaps`; in the run's folder they are `pictures/val/heatmaps-<step>.png`.

    Args:
        methods: by name; default: the four of the study.
        scores: by name, each a `torchmetrics.Metric` (`explained.ScoredMethods` says what it is given); default:
            `cosine`, the similarity of relevance and majority mask.
        sequences: number of validation sequences (the first ones) that are explained, over all ranks; null: all.
        test_sequences: the same for the test.
        pictures: number of these that are drawn, at most one batch of rank 0; 0: none.
        every_n_epochs: explain only after validations of every n-th epoch.

    Raises:
        ValueError: a number is out of range, or a score needs an unknown argument.
    """

    def __init__(
        self,
        methods: dict[str, Attributor] | None = None,
        scores: dict[str, Metric] | None = None,
        sequences: int | None = 200,
        test_sequences: int | None = None,
        pictures: int = 8,
        every_n_epochs: int = 1,
    ) -> None:
        for name, count in (("sequences", sequences), ("test_sequences", test_sequences)):
            if count is not None and count < 1:
                raise ValueError(f"{name}={count} must be at least 1, or null for all")
        if pictures < 0:
            raise ValueError(f"pictures={pictures} must be at least 0")
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs={every_n_epochs} must be at least 1")
        self.scored = ScoredMethods(methods or published_methods(), default_scores() if scores is None else scores)
        self.limits = {"val": sequences, "test": test_sequences}
        self.pictures = pictures
        self.every_n_epochs = every_n_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move the metrics to the device of the model; give TensorBoard a chart of each score."""
        super().setup(trainer, pl_module, stage)
        device = trainer.strategy.root_device
        for metrics in self.scored.metrics.values():
            for metric in metrics.values():
                if device.type == "mps":
                    metric.set_dtype(torch.float32)  # this device has no float64
                metric.to(device)
        layout = {"explainability": {name: ["Multiline", [f"val/{name}/.*"]] for name in self.scored.metrics}}
        for logger in tensorboards(trainer) if stage == "fit" else []:
            logger.experiment.add_custom_scalars(layout)

    def look(
        self,
        trainer: Trainer,
        module: LightningModule,
        logits: Tensor,
        batch: SequenceBatch,
        number: int,
        stage: str,
    ) -> None:
        """Explain those sequences of the batch that are asked for, and draw the first ones."""
        if stage == "val" and not self._asked_for(trainer):
            return
        count = len(batch.label)
        if (limit := self.limits[stage]) is not None:
            # Rank r has the sequences r, r + W, r + 2 W, ...; together, the ranks explain the first `limit`.
            own = -(-max(limit - trainer.global_rank, 0) // trainer.world_size)
            full = trainer.datamodule.evaluation_batch_size  # type: ignore[attr-defined]
            count = min(count, own - number * full)
        if count <= 0:
            return
        batch = batch.first(count)
        prediction = logits[:count].argmax(dim=1)
        network = explained_network(module)
        try:
            explained = self.scored.explain(network, batch.image, batch.label, batch.majority, prediction)
        except UnexplainableError as error:
            raise UnexplainableError(
                f"{error}\nTo train without explanations: --trainer.callbacks null"
            ) from error
        if number == 0 and self.pictures and trainer.is_global_zero:
            names = trainer.datamodule.class_names  # type: ignore[attr-defined]
            figure = draw_heatmaps(explained.first(self.pictures), names)
            show(trainer, self.folder, f"{stage}/heatmaps", figure)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores."""
        if not trainer.sanity_checking and self._asked_for(trainer):
            self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores."""
        self._log(pl_module, "test")

    def _asked_for(self, trainer: Trainer) -> bool:
        return trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _log(self, module: LightningModule, stage: str) -> None:
        for score, metrics in self.scored.metrics.items():
            for method, metric in metrics.items():
                module.log(f"{stage}/{score}/{method}", metric.compute(), sync_dist=True)
                metric.reset()


def explained_network(module: LightningModule) -> nn.Module:
    """The plain network inside a `SequenceClassifier`; any other module is explained as it is."""
    network = getattr(module, "network", module)
    return network if isinstance(network, nn.Module) else module
