import lightning as L
import pytest
import torch

from rnnx_lightning.architectures import Deep
from rnnx_lightning.callbacks import StepRandomness
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences


class Draw(L.Callback):
    def __init__(self):
        self.drawn = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.drawn.append(torch.rand(()).item())


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_batch_draws_anew_and_every_run_the_same(accumulate):
    def run():
        draw = Draw()
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=2, limit_train_batches=3, limit_val_batches=0, logger=False,
            callbacks=[StepRandomness(), draw], enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accumulate_grad_batches=accumulate,
        )  # fmt: skip
        trainer.fit(SequenceClassifier(Deep()), MajoritySequences(dataset="digits", batch_size=30))
        return draw.drawn

    drawn = run()
    assert len(set(drawn)) == 6
    assert run() == drawn
