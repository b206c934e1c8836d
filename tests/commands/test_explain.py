import json

import numpy as np
import pytest
import torch
from PIL import Image

from rnnx_lightning.architectures import Deep
from rnnx_lightning.checkpoints import CheckpointError, check_same_network, load_classifier, load_data
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.commands.explain import main
from rnnx_lightning.data import DataError
from rnnx_lightning.explain import LRP, Epsilon
from rnnx_lightning.metrics.functional import relevance_mass_accuracy


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint such as `rnnx fit` writes, of an untrained network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    torch.save(
        {
            "state_dict": SequenceClassifier(Deep()).state_dict(),
            "pytorch-lightning_version": "2.6.6",
            "hyper_parameters": {
                "network": {"class_path": "rnnx_lightning.architectures.Deep", "init_args": {"columns": 7}},
                "_instantiator": "lightning.pytorch.cli.instantiate_module",
            },
            "datamodule_hyper_parameters": {"dataset": "digits", "seed": 3},
        },
        path,
    )
    return path


def test_sequences_are_explained_from_a_checkpoint_alone(checkpoint, tmp_path):
    main(["--ckpt_path", str(checkpoint), "--index", "0", "7", "--out", str(tmp_path / "deep" / "two")])
    numbers = json.loads((tmp_path / "deep" / "two.json").read_text())
    assert [entry["sequence"] for entry in numbers["sequences"]] == [0, 7]
    first = numbers["sequences"][0]
    assert sum(first["majority"]) == 2
    for name in ("Sensitivity", "GuidedBackprop", "DeepTaylor", "LRP"):
        relevance = np.array(first["methods"][name]["relevance_per_sample"])
        mask = np.array(first["majority"], dtype=float)
        norm = np.linalg.norm(relevance) * np.linalg.norm(mask)
        expected = relevance @ mask / norm if norm else 0
        assert first["methods"][name]["cosine"] == pytest.approx(expected, abs=1e-5)
        assert numbers["scores"]["cosine"][name] == pytest.approx(
            np.mean([entry["methods"][name]["cosine"] for entry in numbers["sequences"]])
        )
    assert numbers["scores"]["conservation_error"].keys() == {"DeepTaylor", "LRP"}
    assert Image.open(tmp_path / "deep" / "two.png").width > 500
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"two.png", "two.json", "two.npz"}


@pytest.mark.parametrize("out", ["one", "one.png", "one.json", "v1.2"])
def test_files_have_one_suffix_each_whatever_is_asked_for(out, checkpoint, tmp_path):
    main(["--ckpt_path", str(checkpoint), "--methods.A", "Sensitivity", "--out", str(tmp_path / out)])
    stem = "v1.2" if out == "v1.2" else "one"
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.png", f"{stem}.json", f"{stem}.npz"}


def test_relevance_itself_is_written(checkpoint, tmp_path):
    main(["--ckpt_path", str(checkpoint), "--index", "3", "5", "--out", str(tmp_path / "two"), "--methods.A", "LRP",
          "--methods.A.rules", "Epsilon", "--scores.mass", "RelevanceMassAccuracy"])  # fmt: skip
    data = load_data(checkpoint)
    data.setup()
    picture, label, majority = data.sequences("test", [3, 5])
    network = load_classifier(checkpoint).network
    relevance = LRP(Epsilon())(network, picture, label)
    with np.load(tmp_path / "two.npz") as arrays:
        assert set(arrays) == {"image", "label", "prediction", "majority", "relevance/A"}
        for name, expected in [
            ("image", picture),
            ("label", label),
            ("majority", majority),
            ("prediction", network(picture).argmax(1)),
            ("relevance/A", relevance),
        ]:
            assert np.array_equal(arrays[name], expected.numpy()), name
    numbers = json.loads((tmp_path / "two.json").read_text())
    mass = relevance_mass_accuracy(relevance, majority).tolist()
    assert [entry["methods"]["A"]["mass"] for entry in numbers["sequences"]] == pytest.approx(mass)
    assert numbers["scores"] == {"mass": {"A": pytest.approx(sum(mass) / 2)}}


def test_own_pictures_are_explained(checkpoint, tmp_path):
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (28, 28), dtype=np.uint8)).save(paths[-1])
    main(["--ckpt_path", str(checkpoint), "--image", *paths, "--out", str(tmp_path / "own")])
    (entry,) = json.loads((tmp_path / "own.json").read_text())["sequences"]
    assert entry["sequence"] == paths
    assert entry["explained_class"] == entry["predicted_class"]
    assert len(entry["methods"]["LRP"]["relevance_per_sample"]) == 3
    assert entry["majority"] is None
    assert "cosine" not in entry["methods"]["LRP"]
    with np.load(tmp_path / "own.npz") as arrays:
        assert "majority" not in arrays
        parts = arrays["relevance/LRP"].reshape(28, 3, 28).sum((0, 2))
    assert entry["methods"]["LRP"]["relevance_per_sample"] == pytest.approx(parts, abs=1e-5)


def test_what_is_given_is_not_written_over(checkpoint, tmp_path):
    picture = tmp_path / "0.png"
    Image.fromarray(np.zeros((28, 28), dtype=np.uint8)).save(picture)
    given = picture.read_bytes()
    with pytest.raises(ValueError, match=r"would overwrite .*0\.png, which is an input: choose another name"):
        main(["--ckpt_path", str(checkpoint), "--image", *3 * [str(picture)], "--out", str(tmp_path / "0")])
    assert picture.read_bytes() == given
    assert not (tmp_path / "0.json").exists()


def test_a_checkpoint_gives_back_network_and_data(checkpoint):
    model = load_classifier(checkpoint)
    assert isinstance(model.network, Deep)
    assert not model.training
    assert load_data(checkpoint, batch_size=7).seed == 3


@pytest.mark.parametrize(("fresh", "sampling"), [(True, "pooled"), (False, "published")])
def test_checkpoints_that_name_the_sampling_as_before_give_back_their_data(checkpoint, tmp_path, fresh, sampling):
    content = torch.load(checkpoint, weights_only=True)
    content["datamodule_hyper_parameters"].pop("sampling", None)
    content["datamodule_hyper_parameters"]["fresh"] = fresh
    torch.save(content, tmp_path / "old.ckpt")
    assert load_data(tmp_path / "old.ckpt").sampling == sampling


def test_a_network_that_has_got_more_arguments_since_is_the_same(checkpoint):
    path = "rnnx_lightning.architectures.Deep"
    check_same_network(checkpoint, {"class_path": path, "init_args": {"columns": 7, "rows": 28, "head": 32}})
    with pytest.raises(CheckpointError, match="holds another network"):
        check_same_network(checkpoint, {"class_path": path, "init_args": {"columns": 7, "rows": 14}})


def test_a_checkpoint_that_is_there_is_named_in_place_of_one_that_is_not(checkpoint):
    with pytest.raises(CheckpointError, match=r"no checkpoint '.*/last\.ckpt', but best\.ckpt beside it$"):
        load_classifier(checkpoint.with_name("last.ckpt"))


def test_data_that_are_described_in_unknown_words_are_refused(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["datamodule_hyper_parameters"]["stretched"] = 2
    torch.save(content, tmp_path / "newer.ckpt")
    with pytest.raises(CheckpointError, match=r"newer\.ckpt describes its data .* 'stretched'"):
        load_data(tmp_path / "newer.ckpt")


@pytest.mark.parametrize("absolute", [False, True])
def test_pictures_that_are_elsewhere_are_told_by_their_place(absolute, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "letters" if absolute else "letters"
    content = torch.load(checkpoint, weights_only=True)
    content["datamodule_hyper_parameters"]["dataset"] = str(folder)
    torch.save(content, "moved.ckpt")
    with pytest.raises(DataError) as refused:
        main(["--ckpt_path", "moved.ckpt"])
    said = str(refused.value)
    assert f"the data of moved.ckpt are the pictures in {folder}" in said
    assert f"there is no folder {tmp_path / 'letters'}: " in said
    assert ("run the command where letters is" in said) != absolute
    assert "put the pictures, or a link to them, there" in said


def test_checkpoints_that_name_learning_rate_and_schedule_as_before_can_be_explained(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"] |= {"learning_rate": 2e-3, "schedule": "one_cycle", "classes": 10}
    torch.save(content, tmp_path / "old.ckpt")
    weights = load_classifier(tmp_path / "old.ckpt").network.state_dict()
    for name, weight in weights.items():
        assert torch.equal(weight, content["state_dict"][f"network.{name}"])


def test_bad_requests_are_refused(checkpoint, tmp_path):
    picture = tmp_path / "big.png"
    Image.new("L", (30, 28)).save(picture)
    (tmp_path / "text.png").write_text("no picture")
    base = ["--ckpt_path", str(checkpoint), "--out", str(tmp_path / "x")]
    for arguments, words in [
        (["--image", str(picture)], "30 x 28 pixels: scale it to 28 x 28"),
        (["--image", str(tmp_path / "none.png")], "there is no picture"),
        (["--image", str(tmp_path / "text.png")], "cannot be read as a picture"),
        (["--index", "360"], "there is no sequence 360"),
        (["--index", "-1"], "there is no sequence -1"),
        (["--index", "1", "--image", str(picture)], "either --image or --index"),
    ]:
        with pytest.raises((ValueError, DataError), match=words):
            main([*base, *arguments])
    assert not (tmp_path / "x.png").exists()


def test_bad_checkpoints_are_refused(checkpoint, tmp_path):
    def written(content):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.ckpt"
        torch.save(content, path)
        return path

    class Code:
        def __reduce__(self):
            return (print, ("this must never run",))

    whole = torch.load(checkpoint, weights_only=True)
    wrong = {**whole, "hyper_parameters": {"network": {"class_path": "rnnx_lightning.architectures.Shallow"},
                                           "_instantiator": "lightning.pytorch.cli.instantiate_module"}}  # fmt: skip
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(checkpoint.read_bytes()[:5000])
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.ckpt").touch()
    for path, words in [
        (tmp_path / "none.ckpt", "there is no checkpoint .*none.ckpt', but .*damaged.ckpt beside it"),
        (tmp_path, "there is no checkpoint .*, but .*damaged.ckpt in it"),
        (run, "there is no checkpoint .*run', but checkpoints/best.ckpt in it"),
        (
            "best",
            "there is no checkpoint 'best': give its path, such as logs/NAME/version_0/checkpoints/best.ckpt",
        ),
        (damaged, "damaged"),
        (written({**whole, "extra": Code()}), "never loaded"),
        (written([1, 2]), "no state_dict"),
        (written({"state_dict": {}}), "does not say which network"),
        (written(wrong), "do not fit the network"),
    ]:
        with pytest.raises(CheckpointError, match=words):
            load_classifier(path)
