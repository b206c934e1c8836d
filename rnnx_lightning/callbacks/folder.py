"""The folder of a run, whichever loggers it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

PICTURES = "pictures"  # of a run, in its folder


def run_folder(trainer: Trainer) -> Path | None:
    """The folder for configuration, results, pictures and predictions of a run; None if nothing is written.

    All ranks must call it, because it may communicate.
    """
    logger = trainer.logger
    if logger is None or isinstance(logger, TensorBoardLogger | CSVLogger):
        folder = trainer.log_dir
        return None if folder is None else Path(folder)
    # `trainer.log_dir` would be `save_dir`, which runs share. Lightning puts checkpoints into this subfolder.
    save_dir, name, version = trainer.strategy.broadcast((logger.save_dir, logger.name, logger.version))
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return Path(
        save_dir or trainer.default_root_dir,
        str(name),
        version if isinstance(version, str) else f"version_{version}",
    )


def beside(path: Path) -> Path:
    """`path`; if it exists, the first of `name-2.yaml`, `name-3.yaml`, ... that does not."""
    if not path.exists():
        return path
    return next(free for number in count(2) if not (free := path.with_stem(f"{path.stem}-{number}")).exists())


def tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    """The TensorBoard loggers among the loggers of a run."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


@contextmanager
def removed_if_refused(trainer: Trainer) -> Iterator[None]:
    """Remove the folder of a run that ends in an error before it holds more than empty curves."""
    try:
        yield
    except Exception:
        for folder in [Path(logger.log_dir) for logger in tensorboards(trainer) if trainer.is_global_zero]:
            files = list(folder.glob("*"))
            if folder.is_dir() and all(file.name.startswith("events.out.tfevents") for file in files):
                for file in files:
                    file.unlink()
                folder.rmdir()
        raise
