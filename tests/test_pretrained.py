"""The networks that travel with the package."""

import json
import sys

import pytest
import torch

from rnnx_lightning import pretrained
from rnnx_lightning.architectures import Evidence
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.pretrained import __main__ as packing
from rnnx_lightning.pretrained import load_pretrained, load_trained, pretrained_names


def test_both_networks_of_all_data_sets_are_there_and_small():
    names = {
        f"{network}-{dataset}"
        for network in ("rlstm", "evidence")
        for dataset in ("mnist", "fashion_mnist", "digits")
    }
    assert set(pretrained_names()) == names
    for name in names:
        assert (pretrained.FOLDER / f"{name}.safetensors").stat().st_size < 400_000
        found = load_pretrained(name)
        assert not found.model.training
        assert found.data["dataset"] == name.partition("-")[2]
        assert found.measured["accuracy"] > 0.9
    assert load_pretrained("rlstm").data["dataset"] == "mnist"


@pytest.mark.parametrize("name", ["rlstm-digits", "evidence-digits"])
def test_they_are_as_good_as_they_say(name):
    found = load_pretrained(name)
    data = MajoritySequences(**found.data)
    data.setup()
    assert packing.measure(found.model.network, data) == pytest.approx(found.measured, abs=2e-3)


@pytest.mark.parametrize("name", ["rlstm", "evidence", "rlstm-fashion_mnist", "evidence-fashion_mnist"])
def test_they_are_as_good_on_real_data(name, real_data_dir):
    found = load_pretrained(name)
    data = MajoritySequences(**found.data, data_dir=str(real_data_dir))
    data.setup()
    with torch.no_grad():
        image, label, _ = data.sequences("test", range(2000))
        assert float((found.model(image).argmax(1) == label).float().mean()) == pytest.approx(
            found.measured["accuracy"], abs=0.012
        )


def test_a_checkpoint_is_packed(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    options = {"features": 24, "hidden": 16}
    network = Evidence(**options)
    content = {
        "name": "Evidence",
        "options": options,
        "state": network.state_dict(),
        "recipe": {"dataset": "digits", "seed": 2},
    }
    content["shape"] = {"samples": 3, "majority_size": 2, "columns": 7, "margin": 0, "task": "majority"}
    torch.save(content, tmp_path / "study.pt")
    monkeypatch.setattr(packing, "FOLDER", tmp_path)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    monkeypatch.setattr(packing, "TOLERANCE", 0.05)
    monkeypatch.setattr(sys, "argv", ["pack", str(tmp_path / "study.pt"), "small-digits"])
    packing.main()
    found = load_pretrained("small-digits")
    for key, value in found.model.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[key].half().float()), key
    assert found.data["seed"] == 2
    assert "accuracy" in capsys.readouterr().out


def test_a_first_picture_needs_no_training_and_no_data(rnnx, tmp_path):
    rnnx("explain", "--pretrained", "rlstm-digits", "--index", "7", "8")
    assert (tmp_path / "explanation.png").stat().st_size > 5000
    numbers = json.loads((tmp_path / "explanation.json").read_text())
    assert numbers["checkpoint"] == "rlstm-digits"
    assert [one["sequence"] for one in numbers["sequences"]] == [7, 8]


def test_bad_names_are_refused():
    with pytest.raises(ValueError, match="no trained network 'rlst': choose from evidence-digits, "):
        load_trained(None, "rlst")
    for both in ((None, None), ("a.ckpt", "rlstm")):
        with pytest.raises(ValueError, match="give either --ckpt_path, or --pretrained with one of"):
            load_trained(*both)
