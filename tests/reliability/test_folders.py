"""What a run writes, and where, whichever loggers it has; nothing that was there is written over."""

import csv
import json
import logging

import pytest
import torch
import yaml
from paths import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnnx_lightning import __main__
from rnnx_lightning.callbacks import predicting

SHORT = [
    "--config", str(ROOT / "configs" / "deep.yaml"), "--data.dataset=digits", "--data.batch_size=100",
    "--trainer.limit_train_batches=3", "--trainer.callbacks=null",
]  # fmt: skip
FIT = ["fit", *SHORT, "--trainer.max_epochs=1"]
CSV = "--trainer.logger=CSVLogger"
CHECKPOINTS = "checkpoints/last.ckpt"


@pytest.fixture
def rnnx(tmp_path, monkeypatch, capsys):
    """Runs the command line here, and returns what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # loggers keep the streams of the test before
    monkeypatch.syspath_prepend(tmp_path)

    def run(*arguments):
        __main__.main(list(map(str, arguments)))
        return capsys.readouterr().out

    return run


def steps_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["global_step"]


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def pictures(step):
    return {f"pictures/{stage}/sequences-{step:07d}.png" for stage in ("val", "test")}


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def test_a_run_without_logger_has_a_folder_too_and_goes_on_in_it(rnnx, tmp_path):
    said = rnnx(*FIT, "--trainer.logger=false")
    assert "Run: logs/deep/version_0" in said
    assert "tensorboard" not in said
    assert "Pictures: logs/deep/version_0/pictures" in said
    expected = {"config.yaml", "results.json", CHECKPOINTS, "checkpoints/best.ckpt", *pictures(2)}
    assert files(tmp_path) == {f"logs/deep/version_0/{name}" for name in expected}
    rnnx(*FIT, "--trainer.logger=false", "--trainer.max_epochs=2", "--ckpt_path=last")
    expected |= {"config-2.yaml", *pictures(5)}
    assert files(tmp_path) == {f"logs/deep/version_0/{name}" for name in expected}
    assert steps_of(tmp_path / "logs/deep/version_0" / CHECKPOINTS) == 6
    rnnx(*FIT, "--trainer.logger=false")
    assert steps_of(tmp_path / "logs/deep/version_1" / CHECKPOINTS) == 3
    assert "Predictions: logs/deep/version_2/predictions.csv" in rnnx("predict", *SHORT, "--trainer.logger=false")


def test_what_a_run_without_logger_leaves_trains_again(rnnx, tmp_path):
    rnnx(*FIT, "--trainer.logger=false")
    rnnx("fit", "--config", "logs/deep/version_0/config.yaml")
    first, again = (
        json.loads((tmp_path / f"logs/{name}/version_0/results.json").read_text())["results"]
        for name in ("deep", "config")
    )
    assert first == again


@pytest.mark.parametrize("root", [(), ("--trainer.default_root_dir=.",)])
def test_a_config_of_the_users_stays_as_it_is(root, rnnx, tmp_path):
    """It is called as ours is, and lies where ours would be written."""
    text = (
        "# mine\ndata:\n  dataset: digits\n  batch_size: 100\nmodel:\n  network: Deep\ntrainer:\n  max_epochs: 1\n"
    )
    (tmp_path / "config.yaml").write_text(text)
    rnnx("fit", "--config", "config.yaml", "--trainer.logger=false", *root)
    assert (tmp_path / "config.yaml").read_text() == text
    (ours,) = tmp_path.rglob("config-2.yaml") if root else tmp_path.glob("logs/config/version_0/config.yaml")
    assert yaml.safe_load(ours.read_text())["data"]["batch_size"] == 100


def test_a_resumed_run_keeps_its_first_config_and_adds_the_new_one(rnnx, tmp_path):
    run = tmp_path / "logs/deep/version_0"
    rnnx(*FIT)
    first = (run / "config.yaml").read_bytes()
    for number in (2, 3):
        rnnx(*FIT, f"--trainer.max_epochs={number}", "--ckpt_path=last")
        assert yaml.safe_load((run / f"config-{number}.yaml").read_text())["trainer"]["max_epochs"] == number
    assert (run / "config.yaml").read_bytes() == first
    with pytest.raises(SystemExit):
        rnnx(*FIT, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert not (run / "config-4.yaml").exists()  # nothing is left of what was refused


def test_predictions_are_written_beside_others(rnnx, tmp_path):
    place = (
        "--trainer.logger=TensorBoardLogger",
        "--trainer.logger.save_dir=here",
        "--trainer.logger.version=mine",
    )
    for name in ("predictions.csv", "predictions-2.csv"):
        assert f"Predictions: here/lightning_logs/mine/{name}" in rnnx("predict", *SHORT, *place)


def test_predictions_are_written_whole_or_not_at_all(rnnx, tmp_path, monkeypatch, capsys):
    class FullDisk:
        def __init__(self, stream):
            self.stream = stream

        def writerow(self, row):
            self.stream.write(",".join(row))

        def writerows(self, rows):
            raise OSError("no space left on device")

    monkeypatch.setattr(predicting.csv, "writer", FullDisk)
    with pytest.raises(SystemExit):
        rnnx("predict", *SHORT)
    assert "no space left on device" in capsys.readouterr().err
    assert not list(tmp_path.rglob("predictions*"))


def test_another_logger_first(rnnx, tmp_path):
    """Scalars in both; pictures where TensorBoard is."""
    first, second = tmp_path / "table/lightning_logs/version_0", tmp_path / "curves/lightning_logs/version_0"
    loggers = (
        CSV,
        "--trainer.logger.save_dir=table",
        "--trainer.logger+=TensorBoardLogger",
        "--trainer.logger.save_dir=curves",
    )
    callbacks = ("--trainer.callbacks=Explainability",)
    said = rnnx(*FIT, *loggers, *callbacks, "--trainer.log_every_n_steps=1")
    assert "Run: table/lightning_logs/version_0\n" in said
    assert "tensorboard --logdir curves/lightning_logs/version_0\n" in said
    tags = events(second).Tags()
    assert {"val/heatmaps", "test/heatmaps", "val/sequences", "test/sequences"} <= set(tags["images"])
    assert "custom_scalars__config__" in tags["tensors"]
    header, *_ = csv.reader((first / "metrics.csv").open())
    for name in ("train/loss", "val/accuracy", "val/cosine/LRP", "test/accuracy", "lr-Adam"):
        assert name in tags["scalars"]
        assert name in header
    for folder in (first, second):
        assert yaml.safe_load((folder / "hparams.yaml").read_text())["data"]["batch_size"] == 100
    assert "final/test/accuracy" in tags["scalars"]
    assert {"config.yaml", "results.json", CHECKPOINTS} <= files(first)


def test_a_table_goes_on_without_losing_what_was_there(rnnx, tmp_path):
    run = tmp_path / "table/lightning_logs/mine"
    loggers = (CSV, "--trainer.logger.save_dir=table", "--trainer.logger.version=mine")
    rnnx(*FIT, *loggers)
    table = (run / "metrics.csv").read_bytes()
    rnnx(*FIT, *loggers, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert (run / "metrics-2.csv").read_bytes() == table
    assert (run / "metrics.csv").exists()
    assert steps_of(run / CHECKPOINTS) == 6


PLACES = {
    "a table": (CSV, "--trainer.logger.save_dir=table"),
    "a folder of checkpoints": ("--checkpoint.dirpath=kept",),
    "no logger": ("--trainer.logger=false", "--trainer.default_root_dir=root"),
    "curves": (
        "--trainer.logger=TensorBoardLogger",
        "--trainer.logger.save_dir=curves",
        "--trainer.logger.name=mine",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_last_checkpoint_is_found_wherever_runs_lie(place, rnnx, tmp_path):
    rnnx(*FIT, *PLACES[place])
    rnnx(*FIT, *PLACES[place], "--trainer.max_epochs=2", "--ckpt_path=last")
    assert max(map(steps_of, tmp_path.rglob("last.ckpt"))) == 6
    if place == "curves":  # they go on, too
        curves = tmp_path / "curves/mine"
        assert [path.name for path in curves.iterdir()] == ["version_0"]
        steps = [event.step for event in events(curves / "version_0").Scalars("val/loss")]
        assert steps == [2, 5]


def test_a_logger_whose_folder_runs_share(rnnx, tmp_path):
    """As those of services: what belongs to the run lies where its checkpoints do."""
    (tmp_path / "service.py").write_text(
        "from lightning.pytorch.loggers.logger import Logger\n\n"
        "class Service(Logger):\n"
        "    name, version, save_dir = 'project', 'abc', '.'\n"
        "    def log_metrics(self, metrics, step=None): pass\n"
        "    def log_hyperparams(self, params): pass\n"
    )
    (tmp_path / "config.yaml").write_text("model:\n  network: Deep\n")
    before = files(tmp_path)
    said = rnnx(*FIT, "--config=config.yaml", "--trainer.logger=service.Service")
    assert "Run: project/abc" in said
    new = {name for name in files(tmp_path) - before if "__pycache__" not in name}
    expected = {"config.yaml", "results.json", CHECKPOINTS, "checkpoints/best.ckpt", *pictures(2)}
    assert new == {f"project/abc/{name}" for name in expected}
    assert (tmp_path / "config.yaml").read_text() == "model:\n  network: Deep\n"


@pytest.mark.parametrize("start", [(), ("--ckpt_path=kept/best.ckpt",)])
def test_the_checkpoints_of_another_run_are_not_written_over(start, rnnx, tmp_path, capsys):
    rnnx(*FIT, "--checkpoint.dirpath=kept")
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    with pytest.raises(SystemExit):
        rnnx(*FIT, "--checkpoint.dirpath=kept", "--trainer.max_epochs=2", *start)
    said = capsys.readouterr().err
    assert "kept holds the checkpoints of another run, which would be overwritten" in said
    assert f"--ckpt_path {tmp_path}/kept/last.ckpt" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before
    assert not (tmp_path / "logs/deep/version_1/config.yaml").exists()


def test_lines_of_a_run_without_end_name_none(rnnx):
    said = rnnx(*FIT, "--trainer.max_epochs=-1", "--trainer.max_steps=6", "--lr_scheduler=null")
    assert "epoch 2  " in said
    assert "/-1" not in said
