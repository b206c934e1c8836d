import json
import re
import shutil
import sys
import warnings

import pytest
import torch
import yaml
from limits import TIME_LIMIT_S
from paths import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnnx_lightning import __main__, __version__
from rnnx_lightning.checkpoints import load_classifier, load_data
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.explain.refusals import NothingToExplainWarning

OVERLAYS = ("fashion_mnist.yaml", "stationary.yaml", "relevance_loss.yaml", "published/recipe.yaml")
CONFIGS = [
    path
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if path.parent.name != "compare" and str(path.relative_to(ROOT / "configs")) not in OVERLAYS
]
QUICK = ["--config", str(ROOT / "configs" / "quick.yaml"), "--trainer.max_epochs", "1"]
QUICK += ["--trainer.check_val_every_n_epoch", "1"]


@pytest.mark.parametrize(
    ("configs", "name"),
    [
        (["configs/convdeep.yaml"], "convdeep"),
        (["/somewhere/configs/published/recipe.yaml", "fashion_mnist.yaml"], "published/recipe+fashion_mnist"),
        (["configs/../../../outside.yaml"], "outside"),
        (["/.."], "run"),
        ([], "run"),
    ],
)
def test_a_run_lands_under_logs_whatever_its_configs_are_called(configs, name):
    from rnnx_lightning.runs import run_name

    assert run_name(configs) == name


def test_help_and_version_import_nothing_heavy(capsys):
    before = set(sys.modules)
    __main__.main(["--help"])
    __main__.main(["--version"])
    assert not {"torch", "lightning"} & (set(sys.modules) - before)
    printed = capsys.readouterr().out
    assert "rnnx fit --config" in printed
    assert __version__ in printed


def test_help_says_what_a_command_of_lightning_does(rnnx):
    assert "\n\nWrite the predictions of the test sequences" in rnnx("predict", "--help").stdout


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_every_config_runs(config, rnnx):
    rnnx("fit", "--config", config, "--data.dataset", "digits", "--trainer.fast_dev_run", "1")


def test_overlays_change_what_they_say(rnnx):
    configs = [part for name in ("deep.yaml", *OVERLAYS) for part in ("--config", ROOT / "configs" / name)]
    printed = yaml.safe_load(rnnx("fit", *configs, "--print_config").stdout)
    assert printed["data"]["dataset"] == "fashion_mnist"
    assert printed["model"]["network"]["init_args"]["stationary_dropout"] is True
    assert printed["model"]["network"]["init_args"]["dropout"] == 0.2
    assert printed["lr_scheduler"] is None
    assert printed["optimizer"]["init_args"]["lr"] == 2e-4
    assert printed["data"]["sampling"] == "published"
    assert printed["trainer"]["max_epochs"] == 100


def test_the_published_recipe_scores_the_last_epoch_and_the_best_beside_it(rnnx, tmp_path):
    """Against the checkpoints; a learning rate that is too high makes the best another than the last."""
    configs = [part for name in ("deep.yaml", OVERLAYS[-1]) for part in ("--config", ROOT / "configs" / name)]
    options = ["--data.dataset=digits", "--trainer.max_epochs=4", "--optimizer.lr=0.05"]
    rnnx("fit", *configs, *options)
    run = tmp_path / "logs/deep+published/recipe/version_0"
    data = load_data(run / "checkpoints/last.ckpt")
    data.setup()
    picture, label, _ = data.sequences("test", range(360))
    epochs = []
    for name, file in (("best", "results-best.json"), ("last", "results.json")):
        checkpoint = run / f"checkpoints/{name}.ckpt"
        epochs.append(torch.load(checkpoint, weights_only=True)["epoch"])
        with torch.no_grad():
            accuracy = (load_classifier(checkpoint).network(picture).argmax(1) == label).double().mean()
        results = json.loads((run / file).read_text())["results"]
        assert results["test/accuracy"] == pytest.approx(accuracy.item())
        assert "test/cosine/LRP" in results
    assert epochs[0] < epochs[1] == 3


@pytest.mark.parametrize(
    "study", sorted((ROOT / "configs" / "compare").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_study_can_be_read(study, monkeypatch):
    monkeypatch.chdir(ROOT)
    from rnnx_lightning.compare.study import Study

    assert Study(**yaml.safe_load(study.read_text())).runs(ROOT / "logs" / "compare")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """One short fit on digits, shared by the tests that look at what it left."""
    import os
    import subprocess

    folder = tmp_path_factory.mktemp("fit")
    done = subprocess.run(
        [sys.executable, "-m", "rnnx_lightning", "fit", *QUICK],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def accuracy_in(output):
    return re.search(r"test/accuracy\D+([\d.]+)", output)[1]


def test_fit_ends_with_a_table_and_the_way_to_look_at_it(finished_run):
    folder, output = finished_run
    assert float(accuracy_in(output)) > 0.05
    assert "Run: logs/quick/version_0" in output
    assert "tensorboard --logdir logs/quick/version_0" in output
    assert re.search(r"epoch 1/1 .* val/accuracy", output)
    assert (folder / "logs/quick/version_0/checkpoints/best.ckpt").is_file()
    assert (folder / "logs/quick/version_0/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_of_the_newest_run_goes_by_its_name(name, finished_run, rnnx, tmp_path):
    shutil.copytree(finished_run[0] / "logs", tmp_path / "logs")
    (tmp_path / f"logs/quick/version_0/checkpoints/{'last' if name == 'best' else 'best'}.ckpt").unlink()
    done = rnnx("test", *QUICK, "--ckpt_path", name)
    assert accuracy_in(done.stdout) == accuracy_in(finished_run[1])


def test_the_results_are_those_of_a_plain_computation(finished_run):
    """Accuracy, loss and cosines of 360 sequences in batches of 50, from the checkpoint only, all at once."""
    run = finished_run[0] / "logs/quick/version_0"
    results = json.loads((run / "results.json").read_text())["results"]
    network = load_classifier(run / "checkpoints/best.ckpt").network
    data = load_data(run / "checkpoints/best.ckpt")
    data.setup()
    picture, label, majority = data.sequences("test", range(360))
    with torch.no_grad():
        logits = network(picture)
    loss = (logits.exp().sum(1) + 1).log() - logits[torch.arange(360), label]
    plain = {"test/loss": loss, "test/accuracy": logits.argmax(1) == label}
    for name, method in published_methods().items():
        parts = method(network, picture, label).unflatten(3, (3, 28)).sum((1, 2, 4))
        norm = parts.square().sum(1).sqrt() * 2**0.5
        plain[f"test/cosine/{name}"] = torch.where(norm > 0, (parts * majority).sum(1) / norm, 0)
    assert results == {
        name: pytest.approx(values.double().mean().item(), abs=2e-6) for name, values in plain.items()
    }


def test_tensorboard_gets_curves_pictures_and_hyperparameters(finished_run):
    events = EventAccumulator(
        str(finished_run[0] / "logs/quick/version_0"), size_guidance={"images": 0, "scalars": 0}
    ).Reload()
    tags = events.Tags()
    for tag in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/accuracy", "lr-Adam"):
        assert tag in tags["scalars"]
    assert events.Scalars("train/sequences_per_second")[0].value > 0
    assert events.Scalars("final/test/accuracy")[0].value == events.Scalars("test/accuracy")[0].value
    assert {"val/sequences", "test/sequences"} <= set(tags["images"])


def test_checkpoint_holds_only_plain_data_and_how_to_rebuild_the_network(finished_run):
    path = finished_run[0] / "logs/quick/version_0/checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"]["network"]["class_path"].endswith("ConvDeep")


def test_the_saved_config_trains_again_to_the_same_numbers(finished_run, rnnx):
    folder, output = finished_run
    again = rnnx("fit", "--config", folder / "logs/quick/version_0/config.yaml").stdout
    assert accuracy_in(again) == accuracy_in(output)


def test_a_checkpoint_can_be_tested_and_predicted_with(finished_run, rnnx, tmp_path):
    folder, output = finished_run
    checkpoint = folder / "logs/quick/version_0/checkpoints/best.ckpt"
    tested = rnnx("test", *QUICK, "--ckpt_path", checkpoint).stdout
    assert accuracy_in(tested) == accuracy_in(output)
    rnnx("predict", *QUICK, "--ckpt_path", checkpoint)
    rows = next(tmp_path.rglob("predictions.csv")).read_text().splitlines()
    assert len(rows) == 361
    right = sum(row.split(",")[1] == row.split(",")[3] for row in rows[1:])
    assert f"{right / 360:.4f}" == accuracy_in(output)
    validated = rnnx("validate", *QUICK, "--ckpt_path", checkpoint).stdout
    assert "val/accuracy" in validated


@pytest.mark.parametrize("command", ["test", "validate"])
def test_random_weights_are_not_evaluated_without_a_word(command, finished_run, rnnx):
    few = (f"--trainer.limit_{'val' if command == 'validate' else 'test'}_batches", 1)
    assert "the network has random weights" in rnnx(command, *QUICK, *few).stderr
    checkpoint = finished_run[0] / "logs/quick/version_0/checkpoints/best.ckpt"
    assert "random weights" not in rnnx(command, *QUICK, *few, "--ckpt_path", checkpoint).stderr


def test_optimizer_and_schedule_are_those_of_the_config(rnnx, tmp_path):
    """From YAML and the command line; a class of one's own, too; what is saved trains again to the same numbers."""
    (tmp_path / "own.py").write_text("import torch\n\nclass Descent(torch.optim.SGD):\n    pass\n")
    (tmp_path / "own.yaml").write_text(
        "optimizer:\n  class_path: own.Descent\n  init_args:\n    momentum: 0.5\n"
        "lr_scheduler:\n  class_path: ExponentialLR\n  init_args:\n    gamma: 0.5\n"
    )
    options = ["--trainer.max_epochs=3", "--optimizer.lr=0.01", "--trainer.log_every_n_steps=1"]
    first = rnnx("fit", *QUICK, "--config", "own.yaml", *options, "--trainer.callbacks=null").stdout
    run = tmp_path / "logs/quick+own/version_0"
    curve = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload().Scalars("lr-Descent")
    epochs = [event.value for event in curve[:: len(curve) // 3]]
    assert epochs == pytest.approx([0.01, 0.005, 0.0025])
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["optimizer"]["class_path"] == "own.Descent"
    assert saved["optimizer_states"][0]["param_groups"][0]["momentum"] == 0.5
    again = rnnx("fit", "--config", run / "config.yaml").stdout
    assert accuracy_in(again) == accuracy_in(first)
    load_classifier(run / "checkpoints/best.ckpt")


def test_adam_in_one_cycle_is_the_default(finished_run):
    saved = yaml.safe_load((finished_run[0] / "logs/quick/version_0/config.yaml").read_text())
    assert saved["optimizer"]["class_path"] == "torch.optim.Adam"
    assert saved["optimizer"]["init_args"]["lr"] == 3e-3
    assert saved["lr_scheduler"]["class_path"] == "rnnx_lightning.schedule.OneCycle"


def test_a_checkpoint_of_another_network_is_refused(finished_run, rnnx):
    checkpoint = finished_run[0] / "logs/quick/version_0/checkpoints/best.ckpt"
    done = rnnx("test", "--config", ROOT / "configs" / "deep.yaml", "--ckpt_path", checkpoint, check=False)
    assert done.returncode == 1
    assert "holds another network" in done.stderr
    assert "ConvDeep(" in done.stderr
    assert "Deep(" in done.stderr
    assert "Traceback" not in done.stderr


def test_apples_gpu_is_not_chosen_unasked(tmp_path, monkeypatch, capsys):
    from rnnx_lightning import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.MPSAccelerator, "is_available", staticmethod(lambda: True))
    cli.main(["fit", *QUICK, "--trainer.fast_dev_run=1"])
    assert "--trainer.accelerator mps" in capsys.readouterr().out


def test_a_fit_without_validation_tests_its_last_weights(rnnx):
    output = rnnx("fit", *QUICK, "--trainer.limit_val_batches", "0", "--trainer.callbacks", "null").stdout
    assert "no best checkpoint" in output
    assert "test/accuracy" in output


def test_printed_config_is_complete(rnnx):
    printed = yaml.safe_load(rnnx("fit", *QUICK, "--data.seed", "5", "--print_config").stdout)
    assert printed["data"]["seed"] == 5
    assert printed["trainer"]["max_epochs"] == 1
    assert printed["checkpoint"]["monitor"] == "val/accuracy"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["fit", *QUICK, "--data.batch_sise", "3"], "Did you mean --data.batch_size?"),
        (["fit", *QUICK, "--data.batch_size", "many"], "many"),
        (["fit", *QUICK, "--data.dataset", "cifar"], "cifar"),
        (["fit", *QUICK, "--data.columns", "5"], "columns=5 must divide"),
        (["fit", *QUICK, "--data.batch_size", "5000"], "batch_size=5000"),
        (["fit", *QUICK, "--model.network", "ConvDeeep"], "ConvDeeep"),
        (["fit", *QUICK, "--data.samples", "40"], "samples=40"),
        (["fit", *QUICK, "--trainer.devices", "999", "--trainer.accelerator", "cpu"], "trainer.devices=999"),
        (["fit", *QUICK, "--trainer.accelerator", "abacus"], "abacus"),
        (["fit", *QUICK, "--trainer.precision", "17"], "17"),
        (["fit", *QUICK, "--lr_scheduler", "cosine"], "cosine"),
        (["fit", *QUICK, "--model.network.init_args.dropuot", "0.1"], "dropuot"),
        (["fit", *QUICK, "--model.network.init_args.dropout", "1.5"], "dropout=1.5"),
        (["test", *QUICK, "--ckpt_path", "nowhere.ckpt"], "there is no checkpoint 'nowhere.ckpt'"),
        (["explain"], "ckpt_path"),
        (["compare"], "missing: --name, --networks"),
        (["tset"], "Did you mean test?"),
    ],
)
def test_bad_options_give_a_clear_message(arguments, words, rnnx):
    done = rnnx(*arguments, check=False)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 15


def test_our_warnings_name_no_line_on_the_command_line():
    before = warnings.formatwarning
    with __main__._warnings_as_messages():
        assert warnings.formatwarning("text", NothingToExplainWarning, "rnnx", 8) == "rnnx: warning: text\n"
        assert "theirs.py:3: UserWarning: text" in warnings.formatwarning("text", UserWarning, "theirs.py", 3)
    assert warnings.formatwarning is before
