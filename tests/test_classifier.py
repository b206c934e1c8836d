import math

import pytest
import torch
from torch import nn

from rnnx_lightning.architectures import ConvDeep
from rnnx_lightning.classifier import SequenceClassifier, rejection_cross_entropy
from rnnx_lightning.data import MajoritySequences


def batches(count):
    data = MajoritySequences(dataset="digits", batch_size=40)
    data.setup()
    loader = data.train_dataloader()
    return [data.on_after_batch_transfer(batch) for batch, _ in zip(loader, range(count), strict=False)]


def test_rejection_loss_is_cross_entropy_with_a_constant_zero():
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    expected = -math.log(math.exp(1) / (math.exp(1) + math.exp(-2) + math.exp(0.5) + 1))
    assert rejection_cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(expected)


def test_training_steps_lower_the_loss():
    model = SequenceClassifier(ConvDeep(), schedule="constant", learning_rate=1e-3)
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


def test_encoding_distinct_images_once_changes_nothing():
    model = SequenceClassifier(ConvDeep(dropout=0.0))
    batch = batches(1)[0]
    assert len(batch.distinct) < 80
    torch.testing.assert_close(model.logits(batch), model(batch.image), rtol=1e-5, atol=1e-6)


def test_learning_rate_must_be_positive():
    with pytest.raises(ValueError, match="learning_rate=0"):
        SequenceClassifier(ConvDeep(), learning_rate=0)
