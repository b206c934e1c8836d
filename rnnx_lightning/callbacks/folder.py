"""A run's folder, whichever loggers it has, and files in it that are there whole or not at all."""

from itertools import count
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

PICTURES = "pictures"  # of a run, in its folder


def run_folder(trainer: Trainer) -> Path | None:
    """Where configuration, results, pictures and predictions of a run belong; None where it leaves nothing.

    Every rank must ask.
    """
    logger = trainer.logger
    if logger is None or isinstance(logger, TensorBoardLogger | CSVLogger):
        folder = trainer.log_dir
        return None if folder is None else Path(folder)
    # Lightning would take `save_dir`, which runs share. Their checkpoints lie deeper, and so does the rest.
    save_dir, name, version = trainer.strategy.broadcast((logger.save_dir, logger.name, logger.version))
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return Path(
        save_dir or trainer.default_root_dir,
        str(name),
        version if isinstance(version, str) else f"version_{version}",
    )


def beside(path: Path) -> Path:
    """`path`, or where something is there already the first free one of `name-2.yaml`, `name-3.yaml`, ..."""
    if not path.exists():
        return path
    return next(free for number in count(2) if not (free := path.with_stem(f"{path.stem}-{number}")).exists())


def tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    """The run's TensorBoard loggers, wherever they stand among others."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
