"""The Lightning data module of the majority-sample problem."""

from collections.abc import Sequence
from functools import partial
from operator import index
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.data.batches import PlannedBatch, SequenceBatch
from rnnx_lightning.data.images import (
    IMAGE_SIZE,
    ImageSet,
    check_known,
    default_data_dir,
    fetch_images,
    load_images,
    scaled,
)
from rnnx_lightning.data.loader import EvaluationLoader, TrainingLoader
from rnnx_lightning.data.majority import Plan, check_possible, draw_plan, pool_of_batch
from rnnx_lightning.data.splits import stratified_split
from rnnx_lightning.seeding import seeded_generator

Sampling = Literal["pooled", "published"]
SPLITS = ("train", "validation", "test")


class MajoritySequences(L.LightningDataModule):
    """Majority-sample sequences of MNIST, FashionMNIST, scikit-learn's digits, or your own pictures.

    One sequence is made for every image of a split: that image, `majority_size - 1` others of its class, and
    images of other classes. All pixels stay as one uint8 tensor on the device that trains: loaders hand out
    `PlannedBatch`es, and networks are given `SequenceBatch`es, whose pixels are gathered there.

    Args:
        dataset: mnist, fashion_mnist or digits; or a folder with pictures of 28 x 28 pixels, light on dark, as
            train/<class>/*.png and test/<class>/*.png.
        data_dir: folder that holds `MNIST/raw` or `FashionMNIST/raw`; fetched into it where missing.
            Default: `RNNX_DATA_DIR`, else `./data`.
        samples: images in a sequence.
        majority_size: images of the majority class, the label.
        columns: pixel columns that the network reads at each time step.
        margin: blank columns beside each sample, a random number of them on its left and the rest on its right.
            So samples are at unknown places, with 0 to 2 * margin blank columns between two of them. An image has
            the same margins wherever it is shown, so that it is encoded only once per batch.
        batch_size: sequences per batch and device; the global batch is this times the number of devices.
        seed: decides the split and every plan, the same on every machine and rank.
        validation_share: share of the training images that is used for validation.
        folds: for cross-validation: the number of stratified folds of the training images.
        fold: the fold that is used for validation, 0 to folds - 1.
        sampling: how training sequences are drawn. "pooled" (faster): again in each epoch, with partners from the
            same batch or a part of it (`pool_of_batch`). Most images of a batch are then in several of its
            sequences, are encoded only once, and have one dropout mask for their features. "published": once,
            with partners from the whole split; each epoch only shuffles them. Sequences then share neither images
            nor dropout masks.
        evaluation_batch_size: the same as `batch_size` for validation, test and prediction, whose results do not
            depend on it; default: `batch_size`.

    Raises:
        ValueError: an argument is out of range.
        ImpossibleSequencesError: such sequences cannot be built; also raised by `setup`.
        DataError: the data set is unknown; `prepare_data` and `setup` also raise it if data is missing or damaged.
    """

    def __init__(
        self,
        dataset: str = "mnist",
        data_dir: str | None = None,
        samples: int = 3,
        majority_size: int = 2,
        columns: int = 7,
        margin: int = 0,
        batch_size: int = 100,
        seed: int = 0,
        validation_share: float = 0.2,
        folds: int | None = None,
        fold: int = 0,
        sampling: Sampling = "pooled",
        evaluation_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        dataset, data_dir = str(dataset), data_dir and str(data_dir)  # a path in a checkpoint would be code
        counts = {"batch_size": batch_size, "evaluation_batch_size": evaluation_batch_size, "samples": samples}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{name}={count} must be at least 1")
        if margin < 0:
            raise ValueError(f"margin={margin} must be at least 0")
        if sampling not in get_args(Sampling):
            raise ValueError(f"sampling={sampling!r}: choose from {', '.join(get_args(Sampling))}")
        self.sample_width = IMAGE_SIZE + margin
        width = samples * self.sample_width
        if columns < 1 or width % columns:
            raise ValueError(
                f"columns={columns} must divide the width of a sequence, "
                f"{samples} x {self.sample_width} = {width} pixels"
            )
        self.save_hyperparameters(logger=False)  # a checkpoint describes its data
        self.dataset = dataset
        self.data_dir = Path(data_dir) if data_dir else default_data_dir()
        self.samples = samples
        self.majority_size = majority_size
        self.columns = columns
        self.margin = margin
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size or batch_size
        self.seed = seed
        self.validation_share = validation_share
        self.folds = folds
        self.fold = fold
        self.sampling = sampling
        self._images: ImageSet | None = None
        self._pixels = torch.empty(0)
        self._left_margin = torch.empty(0)
        self._splits: dict[str, Tensor] = {}
        # Refuse impossible arguments before looking for files.
        check_known(dataset)
        stratified_split(torch.zeros(2, dtype=torch.long), seed=seed, **self._split_arguments())
        check_possible(torch.full((10,), samples), samples, majority_size)

    def _split_arguments(self) -> dict[str, Any]:
        return {"validation_share": self.validation_share, "folds": self.folds, "fold": self.fold}

    @property
    def images(self) -> ImageSet:
        """The data set; available after `setup`."""
        if self._images is None:
            raise RuntimeError("call setup() first")
        return self._images

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, by label."""
        return self.images.classes

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """The shape of one sequence: (1, 28, (28 + margin) * samples)."""
        return 1, IMAGE_SIZE, self.samples * self.sample_width

    def prepare_data(self) -> None:
        """Fetch missing files, in one process only."""
        fetch_images(self.dataset, self.data_dir)

    def setup(self, stage: str | None = None) -> None:
        """Load the images and split them; the same for every stage and rank."""
        if "train" in self._splits:
            return
        images = load_images(self.dataset, self.data_dir)
        train, validation = stratified_split(
            images.labels[: images.test_start], seed=self.seed, **self._split_arguments()
        )
        self._set_images(images, {"train": train, "validation": validation})

    def prepare_test(self) -> None:
        """Fetch and load the test images only. There is one split then, "test", the same as after `setup`."""
        if self._images is None:
            fetch_images(self.dataset, self.data_dir, test_only=True)
            self._set_images(load_images(self.dataset, self.data_dir, test_only=True), {})

    def _set_images(self, images: ImageSet, splits: dict[str, Tensor]) -> None:
        """Keep images and splits, add the test split, and draw margins."""
        splits = {**splits, "test": torch.arange(images.test_start, len(images.labels))}
        for name, members in splits.items():
            counts = torch.bincount(images.labels[members], minlength=len(images.classes))
            where = f"the {name} split of {self.dataset}"
            if self.folds is None and name != "test":
                where += f" (validation_share={self.validation_share})"
            check_possible(counts, self.samples, self.majority_size, where)
        generator = seeded_generator("margin", self.seed)
        self._left_margin = torch.randint(self.margin + 1, (len(images.labels), 1), generator=generator)
        self._images, self._pixels, self._splits = images, images.pixels, splits

    def plan(self, split: str, epoch: int = 0) -> Plan:
        """The sequences of a split in an epoch, in order.

        Args:
            split: "train", "validation" or "test"; the last two are the same in every epoch.
            epoch: counts from 0.

        Returns:
            A `Plan` whose indices point into the whole data set.

        Raises:
            ValueError: there is no such split.
            RuntimeError: it is not loaded yet.
        """
        if split != "train":
            return self._draw(split)
        if self.sampling == "pooled":
            batch = self.batch_size * self._world_size
            return self._draw(split, epoch, pool_of_batch(batch, len(self.class_names), self.majority_size))
        plan = self._draw(split)
        shuffle = seeded_generator("order", self.seed, epoch)
        return plan.rows(torch.randperm(len(plan.label), generator=shuffle))

    def _draw(self, split: str, epoch: int = 0, pool_size: int | None = None) -> Plan:
        """Draw a plan of a split: in random order if there are pools, else in the order of the images."""
        labels, members = self.images.labels, self._members(split)
        plan = draw_plan(
            labels[members],
            samples=self.samples,
            majority_size=self.majority_size,
            generator=seeded_generator("plan", self.seed, split, epoch),
            pool_size=pool_size,
            shuffle=pool_size is not None,
        )
        return plan._replace(index=members[plan.index])

    def _members(self, split: str) -> Tensor:
        """Positions of the images of a split."""
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}: choose from {', '.join(SPLITS)}")
        if split not in self._splits:
            raise RuntimeError(f"the {split} split is not loaded: call setup() first")
        return self._splits[split]

    def sequences(self, split: str, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Some sequences of a split, assembled on the CPU.

        Args:
            split: "train", "validation" or "test".
            rows: their numbers in the split's plan.

        Returns:
            Pictures (B, 1, 28, (28 + margin) * samples) in [-1, 1], labels (B,), majority masks (B, samples).

        Raises:
            ValueError: there is no such sequence or split.
            RuntimeError: the split is not loaded yet.
        """
        plan, numbers = self.plan(split), [index(row) for row in rows]
        if outside := [number for number in numbers if not 0 <= number < len(plan.label)]:
            raise ValueError(
                f"there is no sequence {outside[0]}: the {split} split has 0 to {len(plan.label) - 1}"
            )
        chosen = plan.rows(torch.tensor(numbers, dtype=torch.long))
        batch = self.gather(PlannedBatch.of(chosen, shared=True))
        return batch.image, batch.label, batch.majority

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    def train_dataloader(self) -> TrainingLoader:
        """Training sequences, in a different order in each epoch."""
        rows, batch = len(self._members("train")), self.batch_size * self._world_size
        if rows < batch:
            raise ValueError(
                f"batch_size={self.batch_size} on {self._world_size} device(s) exceeds the {rows} training "
                "sequences: choose a smaller batch_size"
            )
        return TrainingLoader(
            partial(self.plan, "train"),
            self.batch_size,
            self._rank,
            self._world_size,
            shared=self.sampling == "pooled",
            batches_done=self._batches_done,
        )

    def _batches_done(self, loader: TrainingLoader) -> int:
        """Batches of this epoch that were done, if Lightning trains on `loader`; 0 unless resumed within it."""
        trainer = self.trainer
        if trainer is None or not trainer.training or trainer.train_dataloader is not loader:
            return 0
        return trainer.fit_loop.batch_idx + 1

    def _evaluation_loader(self, split: str) -> EvaluationLoader:
        return EvaluationLoader(self.plan(split), self.evaluation_batch_size, self._rank, self._world_size)

    def val_dataloader(self) -> EvaluationLoader:
        """Validation sequences, always the same."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> EvaluationLoader:
        """Test sequences, always the same."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> EvaluationLoader:
        """The test sequences, for predictions."""
        return self._evaluation_loader("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Gather the pixels of a planned batch. Pictures, which the model summary passes, are left unchanged."""
        return self.gather(batch) if isinstance(batch, PlannedBatch) else batch

    def gather(self, batch: PlannedBatch) -> SequenceBatch:
        """The batch with its pixels, scaled to [-1, 1], on the device of its positions."""
        if self._pixels.device != batch.positions.device:
            self._pixels = self._pixels.to(batch.positions.device)
        return batch.with_pixels(scaled(self._tiles(batch.positions).unsqueeze(1)))

    def _tiles(self, which: Tensor) -> Tensor:
        """The pixels (U, 28, 28 + margin), uint8, of images at positions (U,) in the data set, with margins."""
        pixels = self._pixels[which]
        if self.margin == 0:
            return pixels
        if self._left_margin.device != which.device:
            self._left_margin = self._left_margin.to(which.device)
        column = torch.arange(self.sample_width, device=which.device) - self._left_margin[which]
        column = torch.where((column >= 0) & (column < IMAGE_SIZE), column, IMAGE_SIZE)  # padded below
        return F.pad(pixels, (0, 1)).gather(2, column[:, None].expand(-1, IMAGE_SIZE, -1))
