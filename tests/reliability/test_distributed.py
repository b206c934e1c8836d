"""Two processes on the CPU: the same numbers as one."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from limits import TIME_LIMIT_S
from paths import ROOT

SCORES = {
    "cosine": "MajorityCosineSimilarity", "mass": "RelevanceMassAccuracy", "conservation": "ConservationError",
    "flipping": {"class_path": "PixelFlippingArea", "init_args": {"patch": 28}},
}  # fmt: skip
BASE = [
    "fit", "--config", str(ROOT / "configs" / "deep.yaml"), "--data.dataset=digits", "--trainer.max_epochs=2",
    "--model.network.init_args.dropout=0", "--trainer.accelerator=cpu", "--trainer.deterministic=true",
    f"--trainer.callbacks.scores={json.dumps(SCORES)}",
]  # fmt: skip

# A distributed run that hangs ignores SIGTERM.
LIMITED = ("timeout", "-k", "5", str(TIME_LIMIT_S))


def train(folder, *arguments, launcher=()):
    folder.mkdir()
    command = [*(launcher or (sys.executable, "-m", "rnnx_lightning")), *BASE, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run([*LIMITED, *command], cwd=folder, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return read(folder)


def read(folder):
    run = folder / "logs" / "deep" / "version_0"
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return json.loads((run / "results.json").read_text())["results"], weights


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return train(tmp_path_factory.mktemp("single") / "run", "--data.batch_size=50")


def assert_same(one, other):
    """All metrics: loss, accuracy, every method's scores; and the trained weights."""
    assert {f"test/{score}/LRP" for score in SCORES} <= one[0].keys()
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        assert other[0][name] == pytest.approx(value, abs=1e-6), name
    networks = {name: weight for name, weight in one[1].items() if name.startswith("network.")}
    assert networks
    for name, weight in networks.items():
        torch.testing.assert_close(other[1][name], weight, rtol=1e-4, atol=1e-6)


def test_two_ranks_with_half_the_batch_equal_one(single, tmp_path):
    """Uneven last batches included: 287 validation and 360 test sequences over batches of 25."""
    double = train(tmp_path / "double", "--data.batch_size=25", "--trainer.devices=2")
    assert_same(single, double)
    runs = list((tmp_path / "double" / "logs" / "deep").iterdir())
    assert [run.name for run in runs] == ["version_0"]
    assert len(list(runs[0].glob("events.out.tfevents.*"))) <= 3  # one rank writes: fit, test, hyperparameters
    assert len(list(runs[0].glob("pictures/*/heatmaps-*.png"))) == 2 + 1  # two validations, one test


def test_torchrun_starts_the_ranks_too(single, tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29581",
                "-m", "rnnx_lightning")  # fmt: skip
    double = train(tmp_path / "run", "--data.batch_size=25", "--trainer.devices=2", launcher=launcher)
    assert_same(single, double)


def test_slurm_starts_the_ranks_too(single, tmp_path):
    """There is no SLURM here: two processes are started with the variables that srun sets."""
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-m", "rnnx_lightning", *BASE, "--data.batch_size=25", "--trainer.devices=2"]
    job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train",
           "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost"}  # fmt: skip
    ranks = []
    for rank in ("0", "1"):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **job, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        ranks.append(subprocess.Popen([*LIMITED, *command], cwd=folder, env=environment,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))  # fmt: skip
    for rank in ranks:
        _, errors = rank.communicate()
        assert rank.returncode == 0, errors[-3000:]
    assert_same(single, read(folder))


def test_a_rank_without_a_batch_causes_no_deadlock(single, tmp_path):
    """One batch holds all validation sequences that rank 0 sees; limits leave rank 1 with fewer to explain."""
    arguments = ["--data.batch_size=287", "--trainer.devices=2", "--trainer.max_epochs=1",
                 "--trainer.callbacks=Explainability",
                 "--trainer.callbacks.sequences=1", "--trainer.callbacks.test_sequences=1"]  # fmt: skip
    results, _ = train(tmp_path / "run", *arguments)
    assert 0 < results["test/cosine/Sensitivity"] <= 1


def test_predictions_of_two_ranks_are_those_of_one(tmp_path):
    """In the order of the test sequences; of a network that has learned nothing, which is the same for all."""

    def predict(name, *arguments):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-m", "rnnx_lightning", "predict", *BASE[1:], *arguments]
        done = subprocess.run([*LIMITED, *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("Predictions:") == 1
        header, *rows = csv.reader(next(folder.rglob("predictions.csv")).open())
        assert header == ["sequence", "prediction", "probability", "label"]
        return [[float(value) for value in row] for row in rows]

    one, two = predict("one"), predict("two", "--data.batch_size=17", "--trainer.devices=2")
    assert [row[0] for row in one] == list(range(360))
    torch.testing.assert_close(torch.tensor(two), torch.tensor(one))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_equal_one(tmp_path):
    one = train(tmp_path / "one", "--data.batch_size=50", "--trainer.accelerator=gpu", "--trainer.devices=1")
    two = train(tmp_path / "two", "--data.batch_size=25", "--trainer.accelerator=gpu", "--trainer.devices=2")
    assert_same(one, two)
