"""Scalars in every logger, pictures in each that takes some, and always in the run's folder."""

import csv

import lightning as L
import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnnx_lightning.architectures import Deep
from rnnx_lightning.callbacks import Explainability, SequencePictures
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.explain import Sensitivity

SCALARS = ("train/loss", "val/accuracy", "val/cosine/SA", "test/cosine/SA")
SHOWN = {"val/heatmaps": 1, "val/sequences": 1, "test/heatmaps": 1, "test/sequences": 1}  # at this step


class Plain(Logger):
    """A service's: only numbers, and no folder."""

    name, version, save_dir = "project", "run", None

    def __init__(self):
        self.metrics = {}

    def log_metrics(self, metrics, step=None):
        self.metrics |= metrics

    def log_hyperparams(self, params):
        pass


class Showing(Plain):
    """And one that takes pictures."""

    def __init__(self):
        super().__init__()
        self.pictures = {}

    def log_image(self, key, images, step=None):
        self.pictures[key, step] = images


def run(folder, loggers):
    trainer = L.Trainer(
        accelerator="cpu", logger=loggers, default_root_dir=folder, max_epochs=1, limit_train_batches=2,
        limit_val_batches=1, limit_test_batches=1, log_every_n_steps=1, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
        callbacks=[Explainability({"SA": Sensitivity()}, sequences=5, test_sequences=5, pictures=2), SequencePictures(3)],
    )  # fmt: skip
    model, data = SequenceClassifier(Deep(hidden=8, recurrent=8)), MajoritySequences("digits", batch_size=20)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)


def drawn(folder):
    """The pictures in a run's folder, by name and step."""
    found = {}
    for path in (folder / "pictures").rglob("*"):
        if path.is_file():
            name, _, step = path.relative_to(folder / "pictures").with_suffix("").as_posix().rpartition("-")
            found[name, int(step)] = np.asarray(Image.open(path))
    return found


def check(pictures):
    assert pictures.keys() == set(SHOWN.items())
    for picture in pictures.values():
        assert picture.shape[2] == 3
        assert len(np.unique(picture)) > 20


def tensorboard(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def test_no_logger(tmp_path):
    run(tmp_path, False)
    check(drawn(tmp_path))


def test_a_table_and_curves(tmp_path):
    run(tmp_path, [CSVLogger(tmp_path / "a", "", ""), TensorBoardLogger(tmp_path / "b", "", "")])
    pictures, events = drawn(tmp_path / "a"), tensorboard(tmp_path / "b")
    check(pictures)
    assert not (tmp_path / "b/pictures").exists()
    header, *_ = csv.reader((tmp_path / "a/metrics.csv").open())
    assert set(SCALARS) <= set(header) & set(events.Tags()["scalars"])
    for name, step in SHOWN.items():
        (event,) = events.Images(name)
        assert event.step == step
        (height, width, _) = pictures[name, step].shape
        assert (event.width, event.height) == (width, height)


def test_loggers_of_services(tmp_path):
    plain, showing = Plain(), Showing()
    run(tmp_path, [plain, showing])
    pictures = drawn(tmp_path / "project/run")
    check(pictures)
    for logger in (plain, showing):
        assert set(SCALARS) <= logger.metrics.keys()
    assert showing.pictures.keys() == pictures.keys()
    for key, (picture,) in showing.pictures.items():
        assert np.array_equal(picture, pictures[key])


def test_nothing_is_written_by_a_run_to_try(tmp_path):
    trainer = L.Trainer(
        accelerator="cpu", fast_dev_run=True, default_root_dir=tmp_path, logger=[Plain()], callbacks=[SequencePictures()],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(SequenceClassifier(Deep(hidden=8, recurrent=8)), MajoritySequences("digits"))
    assert not list(tmp_path.iterdir())


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path}")
    run(tmp_path, logger)
    check(drawn(tmp_path / logger.name / logger.version))
    client = mlflow.MlflowClient(f"file:{tmp_path}")
    assert set(SCALARS) <= client.get_run(logger.version).data.metrics.keys()
    shown = {file.path for file in client.list_artifacts(logger.version, "images") if file.path.endswith(".png")}
    for name, step in SHOWN.items():
        assert len([path for path in shown if f"images/{name.replace('/', '~')}+step+{step}+" in path]) == 1


def test_weights_and_biases(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    run(tmp_path, logger)
    check(drawn(tmp_path / logger.name / logger.version))
    assert set(SCALARS) <= set(logger.experiment.summary.keys())
    wandb.finish()
    shown = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("media/images/*/*.png")]
    for name in SHOWN:
        assert len([path for path in shown if f"images/{name}_" in path]) == 1
