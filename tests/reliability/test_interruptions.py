"""Runs that are killed, stopped, out of disk or out of numbers: nothing lost, nothing half-written."""

import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from limits import TIME_LIMIT_S
from paths import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ARGUMENTS = [
    "fit", "--config", str(ROOT / "configs" / "deep.yaml"), "--data.dataset=digits", "--data.batch_size=20",
    "--trainer.max_epochs=4", "--trainer.deterministic=true",
]  # fmt: skip
RUN = "logs/deep/version_0"
STEPS = 57  # in an epoch: 1150 sequences in batches of 20
STOPS = "--model.network.class_path=my_network.Stops"  # see `start_stopping`


def start(folder, *arguments, preexec_fn=None, **variables):
    return subprocess.Popen(
        [sys.executable, "-m", "rnnx_lightning", *ARGUMENTS, *arguments], cwd=folder, text=True, preexec_fn=preexec_fn,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(folder, *arguments):
    process = start(folder, *arguments)
    output, errors = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 0, errors[-3000:]
    return output


def left_behind(folder):
    """Weights, logged scalars and results of a finished run."""
    weights = torch.load(folder / RUN / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    events = EventAccumulator(str(folder / RUN), size_guidance={"scalars": 0}).Reload()
    timed = ("train/sequences_per_second",)
    scalars = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag not in timed
    }
    return weights, scalars


def assert_same(one, other):
    for name, weight in one[0].items():
        assert torch.equal(weight, other[0][name]), name
    assert one[1].keys() == other[1].keys()
    for tag, values in one[1].items():
        assert values == other[1][tag], tag


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder)
    return left_behind(folder)


def start_stopping(folder, number, step, during="step", arguments=()):
    """A run that sends itself a signal at a training step, or in the validation after it; Deep otherwise."""
    (folder / "my_network.py").write_text(
        "import os\nfrom rnnx_lightning.architectures import Deep\n\n"
        "class Stops(Deep):\n"
        "    steps = 0\n"
        "    def decide(self, features):\n"
        "        Stops.steps += self.training\n"
        "        here = f\"{'step' if self.training else 'validation'} {Stops.steps}\"\n"
        "        if here == os.environ.get('STOP_AT') and os.environ.get('LOCAL_RANK', '0') == '0':\n"
        "            del os.environ['STOP_AT']\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "        return super().decide(features)\n"
    )
    return start(folder, STOPS, *arguments, STOP_AT=f"{during} {step}")


def test_a_killed_run_goes_on_bit_for_bit(undisturbed, tmp_path):
    process = start_stopping(tmp_path, signal.SIGKILL, 2 * STEPS + 20)
    process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == -signal.SIGKILL
    finish(tmp_path, STOPS, "--ckpt_path", "last")
    assert_same(undisturbed, left_behind(tmp_path))
    assert [path.name for path in (tmp_path / "logs" / "deep").iterdir()] == ["version_0"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--checkpoint.mode=min",),
        ("--trainer.check_val_every_n_epoch=4",),
        ("--checkpoint.every_n_train_steps=40", "--checkpoint.mode=min"),
        ("--trainer.max_steps=10000",),
    ],
    ids=["monitor that gets worse", "no validation yet", "every so many steps", "steps are counted"],
)
def test_a_killed_run_loses_no_finished_epoch(arguments, undisturbed, tmp_path):
    process = start_stopping(tmp_path, signal.SIGKILL, 3 * STEPS + 20, arguments=arguments)
    process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == -signal.SIGKILL
    kept = torch.load(tmp_path / RUN / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 3 * STEPS <= kept < 3 * STEPS + 20
    finish(tmp_path, STOPS, *arguments, "--ckpt_path", "last")
    (weights, scalars), (resumed, logged) = undisturbed, left_behind(tmp_path)
    assert all(torch.equal(weights[name], weight) for name, weight in resumed.items())
    for tag in ("train/loss", "train/accuracy", "lr-Adam"):
        assert logged[tag] == scalars[tag]


@pytest.mark.parametrize(
    ("number", "step", "during"),
    [
        (signal.SIGTERM, 2 * STEPS + 20, "step"),
        (signal.SIGINT, 2 * STEPS, "step"),  # the validation that follows belongs to the epoch
        (signal.SIGINT, 2 * STEPS, "validation"),
        (signal.SIGTERM, 4 * STEPS, "step"),
    ],
    ids=["in an epoch", "at its last step", "in validation", "at the run's last step"],
)
def test_a_stopped_run_says_how_to_go_on_and_does(number, step, during, undisturbed, tmp_path):
    process = start_stopping(tmp_path, number, step, during)
    _, errors = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 128 + number
    when = {"step": "step, or the validation that follows", "validation": "validation"}[during]
    at_once, _, at_the_end = errors.partition(f"rnnx: {number.name}: fit stops after this {when}\n")
    assert "stopped by" not in at_once
    assert f"stopped by {number.name} after step {step};" in at_the_end
    assert "--ckpt_path last" in errors
    assert "Traceback" not in errors
    finish(tmp_path, STOPS, "--ckpt_path", "last")
    assert_same(undisturbed, left_behind(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_test_says_so(number, tmp_path):
    arguments = ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0"]
    process = start_stopping(tmp_path, number, STEPS, "validation", arguments)  # there is none: in the test
    _, errors = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 128 + number
    assert f"rnnx: {number.name}: test stops after this batch\n" in errors
    assert f"test was stopped by {number.name}" in errors
    assert "rnnx test with the same configuration and --ckpt_path last" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / RUN).glob("results*"))


@pytest.mark.parametrize(
    ("step", "every", "counted"),
    [(20, 20, ()), (76, 38, ("--trainer.check_val_every_n_epoch=null",))],
    ids=["within an epoch", "across epochs"],
)
def test_a_validation_that_follows_the_step_comes_first(step, every, counted, tmp_path):
    arguments = (
        f"--trainer.val_check_interval={every}",
        *counted,
        "--trainer.max_epochs=2",
        "--trainer.callbacks=null",
    )
    for folder in ("undisturbed", "stopped"):
        (tmp_path / folder).mkdir()
    finish(tmp_path / "undisturbed", *arguments)
    process = start_stopping(tmp_path / "stopped", signal.SIGTERM, step, arguments=arguments)
    _, errors = process.communicate(timeout=TIME_LIMIT_S)
    assert f"after step {step + 1};" in errors
    finish(tmp_path / "stopped", STOPS, *arguments, "--ckpt_path", "last")
    assert_same(left_behind(tmp_path / "undisturbed"), left_behind(tmp_path / "stopped"))


def test_a_killed_validation_does_not_mix_two_epochs(undisturbed, tmp_path):
    """A checkpoint of an epoch's last step comes before its validation, which is not made up for."""
    often = (STOPS, "--checkpoint.every_n_train_steps=1", "--checkpoint.monitor=null")
    process = start_stopping(tmp_path, signal.SIGKILL, 2 * STEPS, "validation", often)
    process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == -signal.SIGKILL
    finish(tmp_path, *often, "--ckpt_path", "last")
    (weights, scalars), (resumed, logged) = undisturbed, left_behind(tmp_path)
    assert all(torch.equal(weights[name], weight) for name, weight in resumed.items())
    for tag in ("train/loss", "train/accuracy", "val/loss"):
        assert logged[tag] == [*scalars[tag][:1], *scalars[tag][2:]]


def test_two_ranks_go_on(tmp_path):
    """One of them was asked to stop. The metrics of the epoch that was interrupted count what both have seen."""
    two = ("--trainer.devices=2", "--trainer.accelerator=cpu", "--data.batch_size=10")
    for folder in ("undisturbed", "stopped"):
        (tmp_path / folder).mkdir()
    finish(tmp_path / "undisturbed", *two)
    process = start_stopping(tmp_path / "stopped", signal.SIGTERM, 2 * STEPS + 15, arguments=two)
    _, errors = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"after step {2 * STEPS + 21};" in errors  # where they ask one another
    state = torch.load(tmp_path / "stopped" / RUN / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 21
    assert state["state_dict"]["train_metrics.loss.weight"] == 20 * 21
    finish(tmp_path / "stopped", STOPS, *two, "--ckpt_path", "last")
    undisturbed, stopped = left_behind(tmp_path / "undisturbed"), left_behind(tmp_path / "stopped")
    for tag in ("train/loss", "train/accuracy"):  # sums of the ranks' sums, added up in another order
        one, other = dict(undisturbed[1].pop(tag)), dict(stopped[1].pop(tag))
        assert one == pytest.approx(other, rel=1e-6)
    assert_same(undisturbed, stopped)


def test_two_ranks_end_a_test_in_the_same_way(tmp_path):
    """One of them was asked to stop."""
    arguments = ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--data.batch_size=10"]
    two = ("--trainer.devices=2", "--trainer.accelerator=cpu")
    process = start_stopping(tmp_path, signal.SIGTERM, STEPS, "validation", [*arguments, *two])
    _, errors = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.count("rnnx: SIGTERM: test stops after this batch\n") == 1
    assert errors.count("rnnx: test was stopped by SIGTERM, so its results are missing\n") == 1
    # The first rank ends the other one as it leaves, sometimes before that has said so.
    assert errors.count("rnnx: test was stopped by SIGTERM, rank 1\n") <= 1
    assert "Traceback" not in errors


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    start_stopping(tmp_path, signal.SIGKILL, 2 * STEPS + 20).communicate(timeout=TIME_LIMIT_S)
    kept = (tmp_path / RUN / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / RUN / "checkpoints" / ".best.ckpt.part").write_text("what a kill in the middle of writing leaves")

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, len(kept) // 2))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = start(tmp_path, STOPS, "--ckpt_path", "last", preexec_fn=small_files)
    _, errors = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 1
    assert "cannot be written" in errors
    assert "is kept" in errors
    assert "Traceback" not in errors
    checkpoints = tmp_path / RUN / "checkpoints"
    assert (checkpoints / "last.ckpt").read_bytes() == kept
    assert {path.name for path in checkpoints.iterdir()} == {"last.ckpt", "best.ckpt"}


@pytest.mark.parametrize("often", [(), ("--checkpoint.every_n_train_steps=1", "--checkpoint.monitor=null")])
def test_a_loss_that_is_no_number_stops_the_run(often, tmp_path):
    (tmp_path / "my_network.py").write_text(
        "import torch\nfrom rnnx_lightning.architectures import Deep\n\n"
        "class Explodes(Deep):\n"
        "    calls = 0\n"
        "    def decide(self, features):\n"
        "        Explodes.calls += self.training\n"
        "        return super().decide(features) * (float('nan') if Explodes.calls > 70 else 1.0)\n"
    )
    process = start(tmp_path, "--model.network.class_path=my_network.Explodes", *often)
    _, errors = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 1
    assert "NaN or infinite at step 71 (epoch 2)" in errors
    assert "Traceback" not in errors
    for name in ("last.ckpt", "best.ckpt"):
        weights = torch.load(tmp_path / RUN / "checkpoints" / name, weights_only=True)["state_dict"]
        assert all(weight.isfinite().all() for weight in weights.values() if weight.is_floating_point())


def test_there_is_nothing_to_go_on_with(tmp_path):
    process = start(tmp_path, "--ckpt_path", "last")
    _, errors = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 1
    assert "there is no last checkpoint in logs/deep" in errors
