"""The folders of runs: which one a run gets, which one is resumed; nothing in them is overwritten."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from rnnx_lightning.callbacks.folder import beside, run_folder
from rnnx_lightning.callbacks.keeping import best_and_last
from rnnx_lightning.checkpoints import CheckpointError, read_checkpoint

ROOT = Path("logs")
CONFIG_ROOT = "configs"
TENSORBOARD = "lightning.pytorch.loggers.TensorBoardLogger"


def run_name(configs: list[str]) -> str:
    """The folder of a configuration's runs under `logs`: names without `configs/` and suffix, joined by "+".

    It is inside `logs`, whatever the configs' paths are.
    """
    names = []
    for config in map(Path, configs):
        parts = config.with_suffix("").parts
        start = len(parts) - parts[::-1].index(CONFIG_ROOT) if CONFIG_ROOT in parts else -1
        names.append("/".join(part for part in parts[start:] if part != ".." and part != config.anchor))
    return "+".join(names) or "run"


def several(given: Any) -> list[Any]:
    """A list of what may be None, a single item or a list."""
    return given if isinstance(given, list) else [] if given is None else [given]


def _loggers(config: Namespace) -> list[Namespace]:
    return [logger for logger in several(config.trainer.logger) if isinstance(logger, Namespace)]


def _runs_of(logger: Namespace) -> Path:
    """The folder in which a logger creates one folder per run."""
    arguments = logger.get("init_args") or Namespace()
    return Path(arguments.get("save_dir") or ".", arguments.get("name") or "")


def _runs(config: Namespace) -> Path:
    """The folder with the runs of a configuration. With a root folder but no logger, it is the run's own."""
    if loggers := _loggers(config):
        return _runs_of(loggers[0])
    if config.trainer.logger not in (None, True) and config.trainer.default_root_dir is not None:
        return Path(config.trainer.default_root_dir)
    return ROOT / run_name([str(path) for path in config.get("config") or []])


def set_loggers(config: Namespace, subcommand: str) -> None:
    """Log to TensorBoard, in a folder named after the configs, unless the user chose loggers, or none.

    A fit that resumes such a run from its last checkpoint continues its curves.
    """
    if config.trainer.logger in (None, True):
        name = _runs(config).relative_to(ROOT)
        arguments = Namespace(save_dir=str(ROOT), name=str(name), default_hp_metric=False)
        config.trainer.logger = Namespace(class_path=TENSORBOARD, init_args=arguments)
    path = Path(config.get("ckpt_path") or "")
    if subcommand != "fit" or path.name != "last.ckpt":
        return
    for logger in _loggers(config):
        if logger.class_path.endswith("TensorBoardLogger"):
            if logger.init_args.get("version") is None:
                logger.init_args["version"] = _version_of(path, _runs_of(logger))
            # Steps after the checkpoint are run again: TensorBoard drops what was logged for them.
            logger.init_args["purge_step"] = read_checkpoint(path)["global_step"]


def folder_without_logger(config: Namespace, subcommand: str) -> Path:
    """The run's folder if there is no logger: a new one, or that of the run which is resumed."""
    if config.trainer.default_root_dir is not None:
        return Path(config.trainer.default_root_dir)
    place, path = _runs(config), Path(config.get("ckpt_path") or "")
    if subcommand == "fit" and path.name == "last.ckpt" and (version := _version_of(path, place)):
        return place / version
    numbers = [run.name.removeprefix("version_") for run in place.glob("version_*")]
    return place / f"version_{max((int(n) for n in numbers if n.isdigit()), default=-1) + 1}"


def _version_of(checkpoint: Path, runs: Path) -> str | None:
    """The name of the run that a checkpoint belongs to, if that run is in the folder `runs`."""
    run = checkpoint.resolve().parent.parent
    return run.name if run.parent == runs.resolve() else None


def newest(name: str, config: Namespace) -> Path:
    """The "last" or "best" checkpoint of the newest run of a configuration.

    Raises:
        CheckpointError: there is none.
    """
    chosen = config.get("checkpoint.dirpath")
    folder = _runs(config) if chosen is None else Path(chosen)
    file = f"{name}.ckpt"
    patterns = (f"checkpoints/{file}", f"*/checkpoints/{file}") if chosen is None else (file,)
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    if not found:
        raise CheckpointError(
            f"there is no {name} checkpoint in {folder}: leave out --ckpt_path, or give the path of a checkpoint"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def check_start(trainer: Trainer, ckpt_path: str | None) -> None:
    """Refuse a fit that has no epochs left, or would overwrite checkpoints of another run.

    Raises:
        CheckpointError: the checkpoint was trained for more epochs than `max_epochs`; or the run's folder holds
            the last checkpoint of another run, or the fit starts from a checkpoint in it other than the last.
    """
    loops = None if ckpt_path is None else read_checkpoint(ckpt_path).get("loops")
    seen = loops["fit_loop"]["epoch_progress"]["current"]["processed"] if loops else 0
    if trainer.max_epochs is not None and -1 < trainer.max_epochs < seen:
        raise CheckpointError(
            f"{ckpt_path} was trained for {seen} epochs, and trainer.max_epochs={trainer.max_epochs} includes "
            f"them: to continue, set it to more than {seen}"
        )
    callback, folder = best_and_last(trainer), run_folder(trainer)
    if callback is not None and callback.dirpath is not None:
        folder = Path(callback.dirpath)
    elif folder is not None:
        folder = folder / "checkpoints"
    else:
        return
    last, start = folder / "last.ckpt", Path(ckpt_path or "")
    if start.resolve() == last.resolve():
        return
    if last.exists() or start.resolve().parent == folder.resolve():
        raise CheckpointError(
            f"{folder} holds the checkpoints of another run, which would be overwritten: choose another folder "
            f"with --checkpoint.dirpath or --trainer.logger, or continue that run with --ckpt_path {last}"
        )


def keep_tables(trainer: Trainer) -> None:
    """Rename `metrics.csv` of an earlier run, which a `CSVLogger` in the same folder would remove."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        if isinstance(logger, CSVLogger) and (table := Path(logger.log_dir, "metrics.csv")).exists():
            table.rename(beside(table))


def hyperparameters(config: Namespace) -> dict[str, Any]:
    """The part of a configuration that is logged as hyperparameters: the options of model and data."""
    return {"model": config.model.as_dict(), "data": config.data.as_dict()}


class RunConfig(SaveConfigCallback):
    """Saves the configuration as `config.yaml` in the run's folder, and logs it.

    Nothing is overwritten: a resumed run saves its configuration as `config-2.yaml`, and so on.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it. A fit saves it later, when all of it has been checked."""
        if stage != "fit":
            self._save(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and log it."""
        self._save(trainer)
        for logger in trainer.loggers:
            logger.log_hyperparams(hyperparameters(self.config))

    def _save(self, trainer: Trainer) -> None:
        folder = run_folder(trainer)
        if self.already_saved or folder is None or not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = beside(folder / self.config_filename)
        self.parser.save(self.config, str(path), skip_none=False, overwrite=False, multifile=False)
        self.already_saved = True
