"""A run that goes on follows the learning rate and schedule that are asked for now."""

import math

import lightning as L
import pytest
import torch

from rnnx_lightning.architectures import Deep
from rnnx_lightning.callbacks import BestAndLast, Resuming
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.schedule import ONE_CYCLE, adam, copy_settings, make_optimizer

STEPS = 10  # in an epoch, if nothing else is said


class Followed(L.Callback):
    """Notes the optimiser's settings at each step: those it is made with."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        (group,) = optimizer.param_groups
        moments = {float(state["step"]) for state in optimizer.state.values() if "step" in state}
        self.steps.append((trainer.global_step, group["lr"], *group.get("betas", ()), moments))


def train(
    folder,
    resume=None,
    stop=None,
    batches=STEPS,
    batch_size=20,
    learning_rate=2e-3,
    schedule="one_cycle",
    optimizer=None,
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
    schedule = {"one_cycle": ONE_CYCLE, "constant": None}.get(schedule) if isinstance(schedule, str) else schedule
    model = SequenceClassifier(Deep(hidden=8, recurrent=8), optimizer or adam(learning_rate), schedule)
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


def check(steps, first, total, rate, schedule="one_cycle", moments=True):
    """Settings from a step on; `total`: that the schedule is laid over."""
    assert [step for step, *_ in steps] == list(range(first, first + len(steps)))
    for step, found_rate, beta1, beta2, found_moments in steps:
        expected = one_cycle(step, total, rate) if schedule == "one_cycle" else (rate, 0.9)
        assert (found_rate, beta1) == pytest.approx(expected, rel=1e-9)
        assert beta2 == 0.999
        assert found_moments == (
            {float(step)} if step and moments else set()
        )  # Adam's: as many steps as have been made


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
    assert "Resuming" not in capsys.readouterr().out
    train(tmp_path, tmp_path / "last.ckpt", max_epochs=3, learning_rate=1e-3)
    said = capsys.readouterr().out
    assert f"Resuming {tmp_path / 'last.ckpt'} at step 20" in said
    assert "Kept: weights, Adam's moments" in said
    assert "optimizer.lr 0.001 (was 0.002), steps of the schedule 30 (was 20)" in said
    train(tmp_path, tmp_path / "last.ckpt", max_epochs=4, learning_rate=1e-3, schedule="constant", batch_size=25)
    said = capsys.readouterr().out
    assert "Changed: data.batch_size 25 (was 20), lr_scheduler null (was OneCycle)\n" in said


@pytest.mark.parametrize("options", [{"max_epochs": -1}, {"max_epochs": -1, "max_time": "00:00:00:01"}])
def test_one_cycle_needs_an_end(options, tmp_path):
    with pytest.raises(ValueError, match=r"lr_scheduler=OneCycle needs an end, but trainer\.max_epochs=-1"):
        train(tmp_path, **options)
    assert len(train(tmp_path, schedule="constant", stop=25, **{**options, "max_time": None})) == 25


STEP = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2, "gamma": 0.1}}
PLATEAU = {  # never content: from the second epoch on the rate is halved after each one
    "class_path": "lightning.pytorch.cli.ReduceLROnPlateau",
    "init_args": {"monitor": "val/loss", "factor": 0.5, "patience": 0, "threshold": 1e3, "threshold_mode": "abs"},
}
BY_EPOCH = {"step": (STEP, lambda epoch: 0.1 ** (epoch // 2)), "plateau": (PLATEAU, lambda epoch: 0.5 ** max(epoch - 1, 0))}  # fmt: skip


def sgd(lr, momentum=0.0, **more):
    return {"class_path": "torch.optim.SGD", "init_args": {"lr": lr, "momentum": momentum, **more}}


def rates(steps):
    return [(step, rate) for step, rate, *_ in steps]


@pytest.mark.parametrize("kind", BY_EPOCH)
@pytest.mark.parametrize("stop", [None, 20, 33])
def test_schedules_by_epoch(kind, stop, tmp_path):
    """Of five epochs; after an interrupt in one of them, or where it ended, as if nothing had happened."""
    schedule, factor = BY_EPOCH[kind]
    chosen = {"schedule": schedule, "optimizer": sgd(1e-3)}
    steps = train(tmp_path, stop=None if stop == 20 else stop, max_epochs=2 if stop == 20 else 5, **chosen)
    if stop:
        assert len(steps) == stop
        steps += train(tmp_path, tmp_path / "last.ckpt", max_epochs=5, **chosen)
    assert rates(steps) == [(step, pytest.approx(1e-3 * factor(step // STEPS))) for step in range(5 * STEPS)]


@pytest.mark.parametrize("before", [ONE_CYCLE, PLATEAU, None])
def test_another_schedule_is_entered_where_the_epochs_are(before, tmp_path):
    train(tmp_path, schedule=before, stop=13)
    steps = train(tmp_path, tmp_path / "last.ckpt", schedule=STEP, learning_rate=1e-2, max_epochs=4)
    assert rates(steps) == [(step, pytest.approx(1e-2 if step < 20 else 1e-3)) for step in range(13, 40)]


def test_what_was_measured_is_nothing_to_begin_with(tmp_path):
    train(tmp_path)
    steps = train(tmp_path, tmp_path / "last.ckpt", schedule=PLATEAU, learning_rate=1e-2, max_epochs=4)
    assert rates(steps) == [(step, 1e-2) for step in range(20, 40)]  # reduced after them


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_goes_the_other_way_where_there_is_any(momentum):
    """The optimiser's rate is the cycle's highest."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer, schedule = make_optimizer([parameter], sgd(0.1, momentum), ONE_CYCLE, 20)
    for step in range(20):
        (group,) = optimizer.param_groups
        rate, cycled = one_cycle(step, 20, 0.1)
        assert group["lr"] == pytest.approx(rate)
        assert group["momentum"] == pytest.approx(cycled if momentum else 0)
        optimizer.step()
        if step < 19:
            schedule.step()


def test_the_runs_steps_are_those_of_any_schedule_that_lacks_them(tmp_path):
    theirs = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 2e-3}}
    check(train(tmp_path, schedule=theirs), 0, 20, 2e-3)
    fixed = {**theirs, "init_args": {"max_lr": 2e-3, "total_steps": 50}}
    check(train(tmp_path / "fixed", schedule=fixed), 0, 50, 2e-3)


def test_another_optimizer_begins_without_moments(tmp_path, capsys):
    train(tmp_path, optimizer=sgd(1e-2, 0.9))
    capsys.readouterr()
    check(train(tmp_path, tmp_path / "last.ckpt", max_epochs=3)[:1], 20, 30, 2e-3, moments=False)
    said = capsys.readouterr().out
    assert "Kept: weights, the position in the data, the state" in said
    assert (
        "From the configuration: learning rate and schedule, over all steps from the first one on; Adam's moments, starting at 0"
        in said
    )
    assert "optimizer Adam (was SGD), optimizer.lr 0.002 (was 0.01)" in said
    steps = train(tmp_path, tmp_path / "last.ckpt", max_epochs=4, optimizer=sgd(1e-3), schedule=None)
    assert rates(steps) == [(step, 1e-3) for step in range(30, 40)]


def test_what_was_measured_stays_and_all_else_is_as_asked_for_now(tmp_path, capsys):
    """Reduced twice in three epochs; then from twice the rate, to a tenth, after two epochs each."""
    train(tmp_path, schedule=PLATEAU, learning_rate=1e-3, max_epochs=3)
    capsys.readouterr()
    now = {**PLATEAU, "init_args": {**PLATEAU["init_args"], "factor": 0.1, "patience": 1}}
    steps = train(tmp_path, tmp_path / "last.ckpt", schedule=now, learning_rate=2e-3, max_epochs=8)
    assert [rate for _, rate in rates(steps)[::STEPS]] == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5, 5e-6])
    said = capsys.readouterr().out
    assert "From the configuration: learning rate and schedule, reduced by as much as before\n" in said
    for change in ("optimizer.lr 0.002 (was 0.001)", "lr_scheduler.factor 0.1 (was 0.5)", "patience 1 (was 0)"):
        assert change in said


def test_another_value_is_measured_from_its_beginning(tmp_path):
    train(tmp_path, schedule=PLATEAU, learning_rate=1e-3, max_epochs=3)
    now = {**PLATEAU, "init_args": {**PLATEAU["init_args"], "monitor": "val/accuracy"}}
    steps = train(tmp_path, tmp_path / "last.ckpt", schedule=now, learning_rate=1e-3, max_epochs=6)
    assert [rate for _, rate in rates(steps)[::STEPS]] == pytest.approx([1e-3, 1e-3, 5e-4])


def test_other_settings_of_the_optimizer_are_those_asked_for_now():
    parameter = torch.nn.Parameter(torch.ones(2))
    before, _ = make_optimizer([parameter], sgd(0.1, 0.9, weight_decay=0.5), None, None)
    parameter.grad = torch.ones(2)
    before.step()
    moments = before.state[parameter]["momentum_buffer"].clone()
    asked, _ = make_optimizer([parameter], sgd(0.2, 0.8), None, None)
    copy_settings(before, asked)
    (group,) = before.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.2, 0.8, 0)
    assert torch.equal(before.state[parameter]["momentum_buffer"], moments)


def test_a_schedule_that_follows_what_is_not_measured_is_refused(tmp_path):
    schedule = {**PLATEAU, "init_args": {**PLATEAU["init_args"], "monitor": "val/los"}}
    with pytest.raises(ValueError, match=r"lr_scheduler\.monitor=val/los is not among .*val/loss"):
        train(tmp_path, schedule=schedule)


def test_a_schedule_waits_for_the_first_validation(tmp_path):
    """Then it counts epochs."""
    steps = train(tmp_path, schedule=PLATEAU, learning_rate=1e-3, max_epochs=5, check_val_every_n_epoch=2)
    assert [rate for _, rate in rates(steps)[::STEPS]] == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 2.5e-4])
