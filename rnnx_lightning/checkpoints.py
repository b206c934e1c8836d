"""Classifiers and their data, rebuilt from a checkpoint; code in it is never run."""

import os
import pkgutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.cli import instantiate_module

from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import DataError, MajoritySequences


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message says why, and what to do."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, and moves it to its place when it is complete.

    If writing fails or the process is killed, the previous checkpoint is unchanged. A file that was left
    unfinished is removed when the next checkpoint is written to the same folder.
    """

    UNFINISHED = ".{}.part"

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            CheckpointError: it cannot be written; the previous one is still there.
        """
        path = Path(path)
        unfinished = path.with_name(self.UNFINISHED.format(path.name))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for leftover in path.parent.glob(self.UNFINISHED.format("*")):
                leftover.unlink()
            with unfinished.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(path)
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            kept = f"; the previous {path.name} is kept" if path.exists() else ""
            raise CheckpointError(
                f"the checkpoint {path} cannot be written ({error}){kept}. Make room or choose another place "
                "with --trainer.logger, then resume with --ckpt_path last"
            ) from error


def check_same_network(path: str | Path, configured: dict[str, Any]) -> None:
    """Refuse a checkpoint of another architecture.

    Args:
        path: of the checkpoint.
        configured: `class_path` and `init_args` of the network that the configuration asks for.

    Raises:
        CheckpointError: see `read_checkpoint`; or the checkpoint holds another network.
    """
    checkpoint = read_checkpoint(path)
    _check_version(path, checkpoint)
    saved = checkpoint.get("hyper_parameters", {}).get("network")
    if saved is None:
        return

    def described(network: dict[str, Any]) -> str:
        given = _defaults(network["class_path"]) | (network.get("init_args") or {})
        arguments = ", ".join(f"{key}={value}" for key, value in sorted(given.items()))
        return f"{network['class_path'].rpartition('.')[2]}({arguments})"

    if described(saved) != described(configured):
        raise CheckpointError(
            f"{path} holds another network, not the one that the configuration asks for:\n"
            f"  checkpoint:    {described(saved)}\n  configuration: {described(configured)}\n"
            "Use the config that the checkpoint was trained with (config.yaml in its run's folder)."
        )


def _defaults(class_path: str) -> dict[str, Any]:
    """The default arguments of a network: it may have more of them than when a checkpoint was saved."""
    parser = ArgumentParser()
    try:
        parser.add_class_arguments(pkgutil.resolve_name(class_path), fail_untyped=False)
    except (ImportError, AttributeError, ValueError):  # the code does not exist any more
        return {}
    return parser.get_defaults().as_dict()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint with `weights_only=True`.

    Raises:
        CheckpointError: it does not exist, is damaged, holds code, or was not written by rnnx.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {str(path)!r}{_others(path)}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than weights and plain data, which is never loaded: take a "
            "checkpoint that rnnx wrote"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint: {[*str(error).splitlines(), type(error).__name__][0]}"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is not a checkpoint of rnnx: it has no state_dict")
    return checkpoint


def _others(missing: Path) -> str:
    """The checkpoints in a folder that is given in place of one, or beside a missing one; or how to name it."""
    folder, where = (missing, "in") if missing.is_dir() else (missing.parent, "beside")
    found = [*folder.glob("*.ckpt"), *(missing.glob("checkpoints/*.ckpt"))]
    if names := sorted(str(other.relative_to(folder)) for other in found):
        return f", but {' and '.join(names)} {where} it"
    if str(missing) in ("last", "best"):
        return f": give its path, such as logs/NAME/version_0/checkpoints/{missing}.ckpt"
    return ""


def _check_version(path: str | Path, checkpoint: dict[str, Any]) -> None:
    if "pytorch-lightning_version" not in checkpoint:
        raise CheckpointError(f"{path} does not say which version of Lightning wrote it: take one that rnnx wrote")


def load_classifier(path: str | Path) -> SequenceClassifier:
    """The trained classifier, in eval mode, on the CPU.

    Raises:
        CheckpointError: see `read_checkpoint`; or its weights do not fit the network that it names.
    """
    checkpoint = read_checkpoint(path)
    if "network" not in checkpoint.get("hyper_parameters", {}):
        raise CheckpointError(
            f"{path} does not say which network it holds (`rnnx fit` did not make it): load its weights in Python"
        )
    _check_version(path, checkpoint)
    saved = checkpoint["hyper_parameters"]  # names of other hyperparameters have changed since
    try:
        model = instantiate_module(
            SequenceClassifier, {key: saved[key] for key in ("network", "classes") if key in saved}
        )
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
    except (ArgumentError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} names a network that this version of rnnx cannot make, or whose code is not on the path: "
            f"{error}"
        ) from error
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit the network that it names: {error}") from error
    return model.eval()


def load_data(path: str | Path, **changes: Any) -> MajoritySequences:
    """The data module that the checkpoint was trained on, with some arguments changed.

    Raises:
        CheckpointError: see `read_checkpoint`; or this version does not know an argument of its data.
        DataError: the folder of pictures that it was trained on is not there.
    """
    arguments = dict(read_checkpoint(path).get("datamodule_hyper_parameters", {}))
    arguments.pop("_instantiator", None)
    if "fresh" in arguments:  # what `sampling` was called before
        arguments["sampling"] = "pooled" if arguments.pop("fresh") else "published"
    arguments |= changes
    try:
        return MajoritySequences(**arguments)
    except DataError as error:
        folder = Path(arguments["dataset"])
        here = "" if folder.is_absolute() else f"run the command where {folder} is, or "
        raise DataError(
            f"the data of {path} are the pictures in {folder}, but there is no folder {folder.absolute()}: "
            f"{here}put the pictures, or a link to them, there"
        ) from error
    except TypeError as error:
        raise CheckpointError(
            f"{path} describes its data in a way that this version of rnnx does not know: {error}"
        ) from error
