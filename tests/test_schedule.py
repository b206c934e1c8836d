"""A run that goes on follows the learning rate and schedule that are asked for now."""

import math

import lightning as L
import pytest

from rnnx_lightning.architectures import Deep
from rnnx_lightning.callbacks import BestAndLast, Resuming
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences

STEPS = 10  # in an epoch, if nothing else is said


class Followed(L.Callback):
    """Notes the optimiser's settings at each step: those it is made with."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        (group,) = optimizer.param_groups
        moments = {float(state["step"]) for state in optimizer.state.values()}
        self.steps.append((trainer.global_step, group["lr"], *group["betas"], moments))


def train(
    folder,
    resume=None,
    stop=None,
    batches=STEPS,
    batch_size=20,
    learning_rate=2e-3,
    schedule="one_cycle",
    **options,
):
    """Steps that were made, in 2 epochs unless said otherwise."""

    class Stop(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == stop:
                raise KeyboardInterrupt

    followed = Followed()
    trainer = L.Trainer(
        accelerator="cpu", limit_train_batches=batches, limit_val_batches=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[followed, Resuming(), BestAndLast(dirpath=folder, every_n_train_steps=1), Stop()],
        **{"max_epochs": 2, **options},
    )  # fmt: skip
    model = SequenceClassifier(Deep(hidden=8, recurrent=8), learning_rate, schedule)
    data = MajoritySequences(dataset="digits", batch_size=batch_size)
    try:
        trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    except SystemExit:  # what Lightning makes of the interrupt
        assert stop
    return followed.steps


def one_cycle(step, total, rate):
    """By the book [Smith & Topin 2018], with cosines: up in three tenths of the steps, then down to nearly nothing."""

    def between(start, end, part):
        return end + (start - end) * (1 + math.cos(math.pi * part)) / 2

    top, last = 0.3 * total - 1, total - 1
    if step <= top:
        return between(rate / 25, rate, step / top), between(0.95, 0.85, step / top)
    part = (step - top) / (last - top)
    return between(rate, rate / 25 / 1e4, part), between(0.85, 0.95, part)


def check(steps, first, total, rate, schedule="one_cycle"):
    """Settings from a step on; `total`: that the schedule is laid over."""
    assert [step for step, *_ in steps] == list(range(first, first + len(steps)))
    for step, found_rate, beta1, beta2, moments in steps:
        expected = one_cycle(step, total, rate) if schedule == "one_cycle" else (rate, 0.9)
        assert (found_rate, beta1) == pytest.approx(expected, rel=1e-9)
        assert beta2 == 0.999
        assert moments == ({float(step)} if step else set())  # Adam's: as many steps as have been made


def test_the_schedule_without_a_resume(tmp_path):
    check(train(tmp_path), 0, 20, 2e-3)


@pytest.mark.parametrize("before", ["one_cycle", "constant"])
@pytest.mark.parametrize("after", ["one_cycle", "constant"])
def test_more_epochs_with_another_rate_and_schedule(before, after, tmp_path):
    train(tmp_path, schedule=before)
    steps = train(tmp_path, tmp_path / "last.ckpt", max_epochs=5, learning_rate=1e-3, schedule=after)
    assert len(steps) == 30
    check(steps, 20, 50, 1e-3, after)


@pytest.mark.parametrize(
    ("stop", "options", "left", "total"),
    [
        (13, {}, 7, 20),  # as if nothing had happened
        (13, {"max_epochs": 4}, 27, 40),
        (13, {"max_epochs": -1, "max_steps": 33}, 20, 33),
        (20, {"max_epochs": 4}, 20, 40),
        (13, {"max_epochs": 4, "batches": 6, "batch_size": 33}, 3 + 12, 13 + 3 + 12),
        (20, {"max_epochs": 4, "batches": 6, "batch_size": 33}, 12, 32),
        (20, {"max_epochs": 4, "batches": 30, "batch_size": 10}, 60, 80),
    ],
)  # fmt: skip
def test_a_run_that_was_interrupted(stop, options, left, total, tmp_path):
    """In the second of two epochs; `left` steps follow, also of epochs of another length."""
    if stop == 20:
        train(tmp_path)
    else:
        assert len(train(tmp_path, stop=stop)) == stop
    steps = train(tmp_path, tmp_path / "last.ckpt", **options)
    assert len(steps) == left
    check(steps, stop, total, 2e-3)


def test_accumulated_gradients(tmp_path):
    """Of 10 batches an epoch, 4 steps of 3, 3, 3 and 1."""
    train(tmp_path, stop=5, accumulate_grad_batches=3)
    steps = train(tmp_path, tmp_path / "last.ckpt", accumulate_grad_batches=3, max_epochs=3)
    assert len(steps) == 7
    check(steps, 5, 12, 2e-3)


@pytest.mark.parametrize("before", [{"max_epochs": 2}, {"max_steps": 20}, {"max_steps": 17}])
def test_steps_that_are_counted_lose_no_epoch(before, tmp_path):
    """Lightning ended the last epoch a second time; one that was cut short counts as one."""
    made = len(train(tmp_path, **before))
    steps = train(tmp_path, tmp_path / "last.ckpt", max_epochs=4, max_steps=35)
    total = min(made + 20, 35)
    assert len(steps) == total - made
    check(steps, made, total, 2e-3)


def test_what_is_kept_and_what_is_new_is_said(tmp_path, capsys):
    train(tmp_path)
    assert "Going on" not in capsys.readouterr().out
    train(tmp_path, tmp_path / "last.ckpt", max_epochs=3, learning_rate=1e-3)
    said = capsys.readouterr().out
    assert f"Going on from {tmp_path / 'last.ckpt'} at step 20" in said
    assert "Kept from it: weights, Adam's moments" in said
    assert "model.learning_rate 0.001 (was 0.002), steps of the schedule 30 (was 20)" in said
    train(tmp_path, tmp_path / "last.ckpt", max_epochs=4, learning_rate=1e-3, schedule="constant", batch_size=25)
    said = capsys.readouterr().out
    assert "Changed: model.schedule constant (was one_cycle), data.batch_size 25 (was 20)\n" in said


@pytest.mark.parametrize("options", [{"max_epochs": -1}, {"max_epochs": -1, "max_time": "00:00:00:01"}])
def test_one_cycle_needs_an_end(options, tmp_path):
    with pytest.raises(ValueError, match=r"one_cycle needs an end, but trainer\.max_epochs=-1"):
        train(tmp_path, **options)
    assert len(train(tmp_path, schedule="constant", stop=25, **{**options, "max_time": None})) == 25
