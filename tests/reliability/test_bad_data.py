"""Data that are missing, damaged or impossible get one clear message, as other mistakes do."""

import gzip
import os
import shutil

import pytest
from paths import QUICK_FIT as FIT


@pytest.fixture
def mnist(real_data_dir, tmp_path):
    """A copy of the original files that may be spoilt."""
    shutil.copytree(real_data_dir / "MNIST", tmp_path / "data" / "MNIST")
    return tmp_path / "data" / "MNIST" / "raw"


def spoil(raw, kind):
    file = raw / "t10k-labels-idx1-ubyte"
    os.chmod(raw, 0o755)
    os.chmod(file, 0o644)
    content = file.read_bytes()
    if kind == "truncated":
        file.write_bytes(content[:-1])
    elif kind == "altered":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "packed":
        file.write_bytes(gzip.compress(content))
    else:
        file.write_bytes((raw / "train-labels-idx1-ubyte").read_bytes())


@pytest.mark.parametrize("kind", ["truncated", "altered", "empty", "packed", "another file"])
def test_spoilt_data_files(kind, mnist, say):
    spoil(mnist, kind)
    said = say([*FIT, "--data.dataset=mnist", "--data.data_dir=data"])
    for word in ("t10k-labels-idx1-ubyte", "damaged", "Delete it"):
        assert word in said


def test_missing_data_and_no_way_to_get_them(say, monkeypatch):
    monkeypatch.setenv("PATH", "")

    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.MNIST.download", no_network)
    said = say([*FIT, "--data.dataset=mnist", "--data.data_dir=nowhere"])
    for word in ("nowhere", "torchvision", "no network", "no npm on this machine", "digits"):
        assert word in said


PICTURES = {
    "no test pictures": ({"train/a": 28, "train/b": 28}, ["letters", "test/<class>"]),
    "no pictures in a class": ({"train/a": 28, "train/b": None, "test/a": 28, "test/b": 28}, ["train", "b"]),
    "other classes": ({"train/a": 28, "train/b": 28, "test/a": 28, "test/c": 28}, ["differ", "b, c"]),
    "another size": (
        {"train/a": 28, "train/b": 28, "test/a": 28, "test/b": 30},
        ["test/b/0.png", "30 x 30", "28 x 28"],
    ),
    "text": (
        {"train/a": 28, "train/b": 28, "test/a": 28, "test/b": "text"},
        ["test/b/0.png", "cannot be read as a picture"],
    ),
    "a broken chunk": (
        {"train/a": 28, "train/b": 28, "test/a": 28, "test/b": b"broken"},
        ["test/b/0.png", "cannot be read as a picture"],
    ),
    "one class": ({"train/a": 28, "test/a": 28}, ["letters has only one class, a"]),
    "too few": (
        {"train/a": 28, "train/b": 28, "test/a": 28, "test/b": 28},
        ["has 1 images in the train split of letters", "majority_size=2"],
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_folders_of_pictures(name, say, tmp_path):
    from PIL import Image

    pictures, words = PICTURES[name]
    for folder, content in pictures.items():
        path = tmp_path / "letters" / folder / "0.png"
        path.parent.mkdir(parents=True)
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, bytes):
            Image.new("L", (28, 28)).save(path)
            path.write_bytes(path.read_bytes().replace(b"IDAT", b"I\xd9AT"))
        elif content:
            Image.new("L", (content, content)).save(path)
    said = say([*FIT, "--data.dataset=letters"])
    for word in words:
        assert word in said
    assert not (tmp_path / "logs/quick/version_0").exists()
