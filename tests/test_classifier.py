import math

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_summary import ModelSummary
from torch import nn

from rnnx_lightning.architectures import ConvDeep, Shallow
from rnnx_lightning.classifier import SequenceClassifier, rejection_cross_entropy
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.explain import LRP, Epsilon
from rnnx_lightning.explained import ScoredMethods
from rnnx_lightning.metrics import ConservationError
from rnnx_lightning.schedule import adam


def batches(count):
    data = MajoritySequences(dataset="digits", batch_size=40)
    data.setup()
    loader = data.train_dataloader()
    return [data.gather(batch) for batch, _ in zip(loader, range(count), strict=False)]


def test_rejection_loss_is_cross_entropy_with_a_constant_zero():
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    expected = -math.log(math.exp(1) / (math.exp(1) + math.exp(-2) + math.exp(0.5) + 1))
    assert rejection_cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(expected)


def test_training_steps_lower_the_loss():
    model = SequenceClassifier(ConvDeep(), adam(1e-3), lr_scheduler=None)
    model.log_dict = lambda *args, **kwargs: None
    optimizer = model.configure_optimizers()
    batch = batches(1)[0]
    losses = []
    for step in range(15):
        loss = model.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_a_cost_on_logits_is_added_while_training_only():
    batch = batches(1)[0]
    costly, free = (SequenceClassifier(ConvDeep(dropout=0.0), logit_cost=cost) for cost in (0.25, 0.0))
    costly.load_state_dict(free.state_dict())
    with torch.no_grad():
        added = 0.25 * costly.logits(batch).abs().sum() / len(batch.label)
        torch.testing.assert_close(costly.training_step(batch, 0) - free.training_step(batch, 0), added)
        for model in (costly, free):
            model.validation_step(batch, 0)
    assert costly.train_metrics.compute() == free.train_metrics.compute()
    assert costly.val_metrics.compute() == free.val_metrics.compute()


@pytest.mark.parametrize("cost", [-0.1, float("inf"), float("nan")])
def test_a_cost_out_of_range_is_refused(cost):
    with pytest.raises(ValueError, match=f"logit_cost={cost} must be finite and not negative"):
        SequenceClassifier(ConvDeep(), logit_cost=cost)


def test_a_short_batch_counts_by_its_sequences():
    model = SequenceClassifier(ConvDeep()).eval()
    batch = batches(1)[0]
    short = batch.first(3)
    with torch.no_grad():
        model.validation_step(batch, 0)
        model.validation_step(short, 1)
        losses = [rejection_cross_entropy(model.logits(part), part.label) for part in (batch, short)]
    computed = model.val_metrics.compute()
    assert computed["val/loss"].item() == pytest.approx((40 * losses[0] + 3 * losses[1]).item() / 43)


def test_any_module_can_be_trained():
    model = SequenceClassifier(nn.Sequential(nn.Flatten(), nn.Linear(28 * 84, 10)))
    assert model.logits(batches(1)[0]).shape == (40, 10)


class Overwriting(nn.Module):
    """Normalises its input in place."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(28 * 84, 10)

    def forward(self, x):
        x -= x.mean()
        return self.out(x.flatten(1))


def test_a_network_may_overwrite_its_input():
    """What is predicted is explained afterwards, and the logit of what is explained is asked for once more."""
    batch, model = batches(1)[0], SequenceClassifier(Overwriting())
    image = batch.image.clone()
    logits = model.logits(batch)
    assert torch.equal(batch.image, image)
    torch.testing.assert_close(model(image), logits)
    assert torch.equal(image, batch.image)
    scored = ScoredMethods({"LRP": LRP(Epsilon(1e-9))}, {"conservation": ConservationError()})
    explained = scored.explain(model.network, image, batch.label, None, logits.argmax(1))
    assert torch.equal(explained.image, batch.image)


def test_encoding_distinct_images_once_changes_nothing():
    model = SequenceClassifier(ConvDeep(dropout=0.0))
    batch = batches(1)[0]
    assert len(batch.distinct) < 80
    torch.testing.assert_close(model.logits(batch), model(batch.image), rtol=1e-5, atol=1e-6)


def test_learning_rate_must_be_positive():
    with pytest.raises(ValueError, match=r"optimizer\.lr=0"):
        SequenceClassifier(ConvDeep(), adam(0))


@pytest.mark.parametrize("samples", [1, 3])
def test_the_model_summary_counts_the_operations_of_one_sequence(samples, tmp_path):
    summaries = []

    class Summarise(Callback):
        def on_fit_start(self, trainer, pl_module):
            summaries.append(ModelSummary(pl_module))

    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        fast_dev_run=True,
        callbacks=[Summarise()],
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    data = MajoritySequences(dataset="digits", samples=samples, majority_size=1 if samples == 1 else 2)
    trainer.fit(SequenceClassifier(Shallow(hidden=5, recurrent=3)), datamodule=data)
    steps = 4 * samples
    macs = steps * 28 * 7 * 5 + (steps - 1) * (5 * 3 + 3 * 5) + 5 * 10
    assert summaries[0].total_flops == 2 * macs
    assert summaries[0].in_sizes[0] == [1, 1, 28, 28 * samples]
