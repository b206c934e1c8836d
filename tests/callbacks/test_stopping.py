"""What a run that was stopped says; tests/reliability/test_interruptions.py stops runs."""

import signal
from types import SimpleNamespace

import pytest
from lightning.pytorch.trainer.states import TrainerFn

from rnnx_lightning.callbacks.stopping import unfinished


@pytest.mark.parametrize(
    ("checkpoint", "steps", "said"),
    [
        (None, 0, "the same configuration"),  # random weights
        (None, 5, "the same configuration and --ckpt_path last"),  # after a training without a best checkpoint
        ("best.ckpt", 0, "the same configuration and --ckpt_path best.ckpt"),
    ],
)
def test_how_to_repeat_a_test(checkpoint, steps, said):
    state = SimpleNamespace(fn=TrainerFn.TESTING)
    trainer = SimpleNamespace(state=state, is_global_zero=True, ckpt_path=checkpoint, global_step=steps)
    assert str(unfinished(trainer, signal.SIGTERM)) == (
        f"test was stopped by SIGTERM, so its results are missing\nTo repeat it: rnnx test with {said}"
    )
