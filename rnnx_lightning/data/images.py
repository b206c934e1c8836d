"""Images and labels of a data set, as tensors."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from rich.progress import track
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.transforms.functional import pil_to_tensor

from rnnx_lightning.data.sources import FILES, TEST_FILES, DataError, acquire

IMAGE_SIZE = 28
TRAINING_IMAGES = 60_000  # of MNIST and FashionMNIST
DIGITS_TEST_IMAGES = 360  # the last ones, which are by other writers than the first 1437

_ORIGINALS = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}
DATASETS = (*_ORIGINALS, "digits")


class ImageSet(NamedTuple):
    """A data set: its training images first, then its test images.

    Attributes:
        pixels: (N, 28, 28) uint8, 0 (background) to 255.
        labels: (N,) int64.
        classes: names of the classes, by label.
        test_start: position of the first test image.
    """

    pixels: Tensor
    labels: Tensor
    classes: list[str]
    test_start: int


def default_data_dir() -> Path:
    """`RNNX_DATA_DIR` if it is set, else `./data`."""
    return Path(os.environ.get("RNNX_DATA_DIR") or "data")


def check_known(dataset: str) -> None:
    """Refuse a name that is neither a data set nor a folder.

    Raises:
        DataError: the data set is unknown; the message lists the known ones.
    """
    if dataset not in DATASETS and not Path(dataset).is_dir():
        raise DataError(
            f"unknown data set {dataset!r}: choose from {', '.join(DATASETS)}, or name a folder that holds "
            "pictures as train/<class>/*.png and test/<class>/*.png. There is no folder "
            f"{Path(dataset).absolute()}"
        )


def fetch_images(dataset: str, data_dir: Path, test_only: bool = False) -> None:
    """Make sure that the files of `dataset`, or those with its test images, are in `data_dir`.

    Raises:
        DataError: a file is damaged, or no source could supply what is missing.
    """
    if dataset in _ORIGINALS:
        acquire(_ORIGINALS[dataset].__name__, data_dir, TEST_FILES if test_only else FILES)


def missing_files(dataset: str, data_dir: Path) -> list[str]:
    """The files of `dataset`, one of `DATASETS`, that are missing. Those that are there are not checked."""
    if dataset not in _ORIGINALS:
        return []
    raw = data_dir / _ORIGINALS[dataset].__name__ / "raw"
    return [file for file in FILES if not (raw / file).exists()]


def load_images(dataset: str, data_dir: Path, test_only: bool = False) -> ImageSet:
    """Read a data set whose files are there (see `fetch_images`).

    Args:
        dataset: "mnist", "fashion_mnist", or "digits", scikit-learn's embedded 8 x 8 digits brought to 28 x 28;
            or a folder that holds pictures as `train/<class>/*.png` and `test/<class>/*.png`.
        data_dir: the folder that holds `MNIST/raw` and `FashionMNIST/raw`.
        test_only: do not read the training images of MNIST and FashionMNIST; they are blank and have the label -1.

    Raises:
        DataError: the data set is unknown, or its files cannot be read.
    """
    if dataset == "digits":
        return _load_digits()
    if dataset not in _ORIGINALS:
        check_known(dataset)
        return _load_folder(Path(dataset))
    original = _ORIGINALS[dataset]
    raw = data_dir / original.__name__ / "raw"
    try:
        test = _read(raw, TEST_FILES)
        train = _blank() if test_only else _read(raw, FILES)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{dataset} cannot be read from {data_dir}: {error}") from error
    return ImageSet(
        pixels=torch.cat([train[0], test[0]]),
        labels=torch.cat([train[1], test[1]]),
        classes=[name.split(" - ")[0] if dataset == "mnist" else name for name in original.classes],
        test_start=len(train[0]),
    )


def _blank() -> tuple[Tensor, Tensor]:
    """Stand-ins for the training images and labels, so that test images keep their positions."""
    pixels = torch.zeros(TRAINING_IMAGES, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    return pixels, torch.full((TRAINING_IMAGES,), -1)


def _read(raw: Path, files: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Images and labels from the first two files, which are in IDX format."""
    images, labels, *_ = (str(raw / file) for file in files)
    return read_image_file(images), read_label_file(labels)


def _load_digits() -> ImageSet:
    from sklearn.datasets import load_digits  # costs a second to import, and only this data set needs it

    images, labels = load_digits(return_X_y=True)
    small = torch.as_tensor(images, dtype=torch.float32).view(-1, 1, 8, 8)
    large = F.interpolate(small, size=24, mode="bilinear", align_corners=False)
    pixels = F.pad(large, (2, 2, 2, 2)).squeeze(1).mul(255 / 16).round().to(torch.uint8)
    return ImageSet(
        pixels=pixels,
        labels=torch.as_tensor(labels).long(),
        classes=[str(digit) for digit in range(10)],
        test_start=len(pixels) - DIGITS_TEST_IMAGES,
    )


def _load_folder(folder: Path) -> ImageSet:
    try:
        parts = [datasets.ImageFolder(folder / part) for part in ("train", "test")]
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not a data set with pictures as train/<class>/*.png and test/<class>/*.png: {error}"
        ) from error
    train, test = parts
    if train.classes != test.classes:
        other = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(f"the classes in {folder}/train and {folder}/test differ: {', '.join(other)}")
    if len(train.classes) == 1:
        raise DataError(f"{folder} has only one class, {train.classes[0]}: a majority needs images of others, too")
    files = track(
        [path for part in parts for path, _ in part.samples],
        f"reading {folder}",
        transient=True,
        disable=not sys.stdout.isatty(),
    )
    return ImageSet(
        pixels=torch.stack([read_picture(path) for path in files]),
        labels=torch.tensor(train.targets + test.targets),
        classes=train.classes,
        test_start=len(train),
    )


def read_picture(path: str | Path) -> Tensor:
    """Read a picture and convert it to grey.

    Args:
        path: of any format that Pillow reads, 28 x 28 pixels, light on dark.

    Returns:
        (28, 28) uint8.

    Raises:
        DataError: it does not exist, cannot be read, or has another size.
    """
    try:
        with Image.open(path) as picture:
            mode, grey = picture.mode, picture.convert("L")
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {str(path)!r}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture") from error
    if mode.startswith(("I", "F")):  # Pillow would clip their values at 255
        raise DataError(f"{path} has more than 8 bits per pixel (mode {mode}): convert it to 8 bits")
    if grey.size != (IMAGE_SIZE, IMAGE_SIZE):
        raise DataError(f"{path} has {grey.width} x {grey.height} pixels: scale it to {IMAGE_SIZE} x {IMAGE_SIZE}")
    return pil_to_tensor(grey)[0]


def scaled(pixels: Tensor) -> Tensor:
    """Pixels of any shape, uint8, as the networks' input: float in [-1, 1], background -1."""
    return pixels.float() / 127.5 - 1
