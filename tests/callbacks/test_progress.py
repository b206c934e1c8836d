from unittest.mock import patch

import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from rnnx_lightning.architectures import Deep
from rnnx_lightning.callbacks import EpochLines, Throughput
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences


class Clock(L.Callback):
    """Each training step takes 2 seconds, each validation batch 1000, and nothing else takes any."""

    now = 5e6

    def on_train_batch_start(self, *arguments):
        self.now += 2.0

    def on_validation_batch_start(self, *arguments):
        self.now += 1000.0


def trained(folder, resume=None, **arguments):
    clock = Clock()
    keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1, monitor=None)
    trainer = L.Trainer(
        accelerator="cpu", limit_train_batches=6, logger=False, callbacks=[clock, Throughput(), keep],
        enable_progress_bar=False, enable_model_summary=False, **arguments,
    )  # fmt: skip
    with patch("rnnx_lightning.callbacks.progress.time.perf_counter", lambda: clock.now):
        data = MajoritySequences(dataset="digits", batch_size=30)
        trainer.fit(SequenceClassifier(Deep()), data, ckpt_path=resume, weights_only=True)
    return trainer


@pytest.mark.parametrize("val_check_interval", [6, 2])
def test_validation_is_not_counted(val_check_interval, tmp_path):
    trainer = trained(tmp_path, max_epochs=2, val_check_interval=val_check_interval)
    assert trainer.callback_metrics["train/sequences_per_second"] == pytest.approx(30 / 2)


def test_a_run_that_goes_on_counts_what_is_left_of_its_epoch(tmp_path):
    trained(tmp_path, max_epochs=1)
    trainer = trained(tmp_path, max_epochs=1, resume=tmp_path / "step=4.ckpt")
    assert trainer.global_step == 6
    assert trainer.callback_metrics["train/sequences_per_second"] == pytest.approx(30 / 2)


def test_an_epoch_that_is_cut_short_shows_its_own_metrics(tmp_path, capsys):
    """As by `max_time`: not those of the epoch before."""

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, *arguments):
            trainer.should_stop = trainer.global_step == 10

    losses = []
    trainer = L.Trainer(
        accelerator="cpu", limit_train_batches=6, limit_val_batches=0, max_epochs=5, logger=False,
        callbacks=[Stop(), Throughput(), EpochLines()], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip

    class Kept(SequenceClassifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            losses.append(float(loss))
            return loss

    trainer.fit(Kept(Deep()), MajoritySequences(dataset="digits", batch_size=30))
    assert len(losses) == 10
    assert trainer.callback_metrics["train/loss"] == pytest.approx(sum(losses[6:]) / 4)
    first, second = capsys.readouterr().out.splitlines()
    assert f"train/loss {sum(losses[:6]) / 6:.4f}" in first
    assert f"train/loss {sum(losses[6:]) / 4:.4f}" in second
