"""Images and labels of a data set, as uint8 tensors kept whole."""

import os
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets

from rnnx_lightning.data.sources import DataError, acquire

DatasetName = Literal["mnist", "fashion_mnist", "digits"]
IMAGE_SIZE = 28
DIGITS_TEST_IMAGES = 360  # the last ones: other writers than the first 1437

_ORIGINALS = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}


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


def fetch_images(dataset: DatasetName, data_dir: Path) -> None:
    """Make sure that the files of `dataset` are in `data_dir`.

    Raises:
        DataError: a file is damaged, or no source could supply what is missing.
    """
    if dataset in _ORIGINALS:
        acquire(_ORIGINALS[dataset].__name__, data_dir)


def load_images(dataset: DatasetName, data_dir: Path) -> ImageSet:
    """Read a data set whose files are there (see `fetch_images`).

    Args:
        dataset: "mnist", "fashion_mnist", or "digits", scikit-learn's embedded 8 x 8 digits brought to 28 x 28.
        data_dir: the folder that holds `MNIST/raw` and `FashionMNIST/raw`.

    Raises:
        DataError: the data set is unknown, or its files cannot be read.
    """
    if dataset == "digits":
        return _load_digits()
    if dataset not in _ORIGINALS:
        raise DataError(f"unknown data set {dataset!r}: choose from {', '.join(get_args(DatasetName))}")
    try:
        parts = [_ORIGINALS[dataset](root=str(data_dir), train=train) for train in (True, False)]
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{dataset} cannot be read from {data_dir}: {error}") from error
    return ImageSet(
        pixels=torch.cat([part.data for part in parts]),
        labels=torch.cat([part.targets for part in parts]).long(),
        classes=[name.split(" - ")[0] if dataset == "mnist" else name for name in parts[0].classes],
        test_start=len(parts[0].data),
    )


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
