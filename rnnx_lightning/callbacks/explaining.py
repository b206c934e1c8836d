"""Explanations while a network trains: scores and pictures after each validation, on the accelerator."""

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from rnnx_lightning.callbacks.evaluation import AfterEvaluation
from rnnx_lightning.callbacks.folder import log_figure, tensorboards
from rnnx_lightning.data.loader import SequenceBatch
from rnnx_lightning.explain import Attributor
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.metrics import MajorityCosineSimilarity
from rnnx_lightning.metrics.functional import majority_cosine_similarity
from rnnx_lightning.rendering.heatmaps import draw_heatmaps


def explain_by_all(
    methods: Mapping[str, Attributor], network: nn.Module, image: Tensor, label: Tensor, majority: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Relevance (B, 1, H, W) by every method, and its cosine similarity (B,) with the majority masks."""
    relevance = {name: method(network, image, label) for name, method in methods.items()}
    return relevance, {name: majority_cosine_similarity(part, majority) for name, part in relevance.items()}


def explained_network(module: LightningModule) -> nn.Module:
    """The plain network inside a `SequenceClassifier`; any other module is explained as it is."""
    network = getattr(module, "network", module)
    return network if isinstance(network, nn.Module) else module


class CosineSimilarity(AfterEvaluation):
    """Logs how well each method's relevance agrees with the majority mask: `val/cosine/<method>`.

    The true class is explained. Checkpoints and early stopping can monitor the values.

    Args:
        methods: by name; default: the four of the study.
        sequences: the first so many validation sequences, over all ranks together; null: all.
        test_sequences: the same for the test.
        every_n_epochs: explain after the validations of every so many-th epoch.

    Raises:
        ValueError: there is no sequence, or no epoch, to look at.
    """

    def __init__(
        self,
        methods: dict[str, Attributor] | None = None,
        sequences: int | None = 200,
        test_sequences: int | None = None,
        every_n_epochs: int = 1,
    ) -> None:
        for name, count in (("sequences", sequences), ("test_sequences", test_sequences)):
            if count is not None and count < 1:
                raise ValueError(f"{name}={count} must be at least 1, or null for all")
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs={every_n_epochs} must be at least 1")
        self.every_n_epochs = every_n_epochs
        self.methods: Mapping[str, Attributor] = methods or published_methods()
        self.limits = {"val": sequences, "test": test_sequences}
        self.scores = {name: MajorityCosineSimilarity() for name in self.methods}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The metrics live where the model does."""
        device = trainer.strategy.root_device
        for score in self.scores.values():
            if device.type == "mps":
                score.set_dtype(torch.float32)  # there is no float64
            score.to(device)
        layout = {"explainability": {"cosine similarity": ["Multiline", ["val/cosine/.*"]]}}
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
        """Explain the part of the batch that is asked for."""
        if stage == "val" and not self._asked_for(trainer):
            return
        count = len(batch.label)
        if (limit := self.limits[stage]) is not None:
            # Rank r sees every W-th sequence from r on; together the ranks look at the first `limit`.
            own = -(-max(limit - trainer.global_rank, 0) // trainer.world_size)
            full = trainer.datamodule.evaluation_batch_size  # type: ignore[attr-defined]
            count = min(count, own - number * full)
        if count <= 0:
            return
        batch = batch.first(count)
        image = batch.image
        for name, method in self.methods.items():
            relevance = method(explained_network(module), image, batch.label)
            self.scores[name].update(relevance, batch.majority)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means."""
        if not trainer.sanity_checking and self._asked_for(trainer):
            self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means."""
        self._log(pl_module, "test")

    def _asked_for(self, trainer: Trainer) -> bool:
        return trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _log(self, module: LightningModule, stage: str) -> None:
        for name, score in self.scores.items():
            module.log(f"{stage}/cosine/{name}", score.compute(), sync_dist=True)
            score.reset()


class Heatmaps(AfterEvaluation):
    """Logs a picture to TensorBoard: a row a sequence, the input and each method's relevance in columns.

    Args:
        methods: by name; default: the four of the study.
        sequences: the first so many sequences, at most a batch; the same after every epoch.

    Raises:
        ValueError: there is no sequence to draw.
    """

    def __init__(self, methods: dict[str, Attributor] | None = None, sequences: int = 8) -> None:
        if sequences < 1:
            raise ValueError(f"sequences={sequences} must be at least 1")
        self.methods: Mapping[str, Attributor] = methods or published_methods()
        self.sequences = sequences

    def look(
        self,
        trainer: Trainer,
        module: LightningModule,
        logits: Tensor,
        batch: SequenceBatch,
        number: int,
        stage: str,
    ) -> None:
        """Draw the first batch, on the first rank."""
        if number > 0 or not trainer.is_global_zero or not tensorboards(trainer):
            return
        batch = batch.first(self.sequences)
        image = batch.image
        network = explained_network(module)
        relevance, scores = explain_by_all(self.methods, network, image, batch.label, batch.majority)
        figure = draw_heatmaps(
            image,
            relevance,
            batch.label,
            logits[: self.sequences].argmax(dim=1),
            batch.majority,
            trainer.datamodule.class_names,  # type: ignore[attr-defined]
            scores,
        )
        log_figure(trainer, f"{stage}/heatmaps", figure)
