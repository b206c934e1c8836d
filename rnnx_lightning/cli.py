"""LightningCLI as `rnnx` uses it: where runs land, what is printed, and the test after a fit."""

import contextlib
import difflib
import io
import logging
import os
import re
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from rich.console import Console

import rnnx_lightning.architectures  # noqa: F401  (so that `class_path: ConvDeep` is known)
from rnnx_lightning.callbacks import (
    EpochLines,
    FiniteLoss,
    GracefulStop,
    ResultTable,
    SequencePictures,
    StepRandomness,
    Throughput,
)
from rnnx_lightning.checkpoints import (
    AtomicCheckpointIO,
    CheckpointError,
    check_same_network,
    read_checkpoint,
)
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.commands.predict import write_predictions
from rnnx_lightning.data import MajoritySequences

CONFIG_ROOT = "configs"


def run_name(configs: list[str]) -> str:
    """The run's folder under `logs`: the configs' names without `configs/` and suffix, joined by "+".

    It never leads out of `logs`, whatever the configs' paths are.
    """
    names = []
    for config in map(Path, configs):
        parts = config.with_suffix("").parts
        start = len(parts) - parts[::-1].index(CONFIG_ROOT) if CONFIG_ROOT in parts else -1
        names.append("/".join(part for part in parts[start:] if part != ".." and part != config.anchor))
    return "+".join(names) or "run"


class RnnxCLI(LightningCLI):
    """The commands fit, validate, test and predict."""

    def __init__(self, args: ArgsType) -> None:
        usage = {
            command: {"usage": f"rnnx {command} [--config FILE] [options]   (rnnx {command} --help)"}
            for command in self.subcommands()
        }
        super().__init__(
            SequenceClassifier,
            MajoritySequences,
            args=args,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # A misspelt option is refused, not completed.
            parser_kwargs={"prog": "rnnx", "allow_abbrev": False, **usage},
            save_config_kwargs={"overwrite": True},
            # Explanations after validation need gradients, which tensors made under inference mode refuse.
            trainer_defaults={"inference_mode": False, "max_epochs": 10, "log_every_n_steps": 10},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The checkpoint callback is always there and has options of its own."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/accuracy",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments("data.columns", "model.network.init_args.columns")
        parser.link_arguments("model.classes", "model.network.init_args.classes")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; after a misspelt option, on the command line or in a file, name the nearest one that there is."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                super().parse_arguments(parser, args)
        except SystemExit:
            print(said.getvalue().rstrip(), file=sys.stderr)
            known = self._subcommand_parsers[sys.argv[1]]._option_string_actions
            for option in re.findall(r"(?:option|key) '([\w.]+)'|arguments?: --([\w.]+)", said.getvalue()):
                nearest = difflib.get_close_matches("--" + "".join(option), known, n=1, cutoff=0.8)
                if nearest:
                    print(f"{''.join(option)}: did you mean {nearest[0]}?", file=sys.stderr)
            if "config" in said.getvalue():
                files = [word for flag, word in pairwise(sys.argv) if flag == "--config"]
                print(f"config files, in this order: {', '.join(files) or 'none'}", file=sys.stderr)
            raise
        sys.stderr.write(said.getvalue())
        seed = self.config[self.config["subcommand"]].get("seed_everything")
        if isinstance(seed, int) and not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise ValueError(f"seed_everything={seed} must lie between 0 and {2**32 - 1}")

    def _parse_ckpt_path(self) -> None:
        """Find `--ckpt_path last`; refuse a checkpoint that is damaged or of another architecture.

        Lightning would let the checkpoint's hyperparameters win over the configuration without a word.
        """
        config = self.config[self.config["subcommand"]]
        if "weights_only" in config:
            config.weights_only = True  # Lightning's own default would unpickle anything
        path = config.get("ckpt_path")
        if path is None or path == "best":
            return
        if path == "last":
            path = config.ckpt_path = str(self._newest_last(config))
        check_same_network(path, config.model.network.as_dict())

    @staticmethod
    def _files(config: Namespace) -> list[str]:
        return [str(path) for path in config.get("config") or []]

    def _newest_last(self, config: Namespace) -> Path:
        folder = Path("logs") / run_name(self._files(config))
        found = sorted(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise CheckpointError(f"there is no last checkpoint in {folder}: run without --ckpt_path")
        return found[-1]

    def before_instantiate_classes(self) -> None:
        """Name the run after its configs, unless the user chose a logger; a resumed run goes on in its folder."""
        config = self.config[self.subcommand]
        folder = Path("logs") / run_name(self._files(config))
        path = Path(config.get("ckpt_path") or "")
        if config.trainer.logger in (None, True):
            arguments = Namespace(save_dir="logs", name=str(folder.relative_to("logs")), default_hp_metric=False)
            if self.subcommand == "fit" and path.name == "last.ckpt" and folder in path.parents:
                arguments.version = path.parent.parent.name
            config.trainer.logger = Namespace(
                class_path="lightning.pytorch.loggers.TensorBoardLogger", init_args=arguments
            )
        if self.subcommand == "fit" and path.name == "last.ckpt" and "init_args" in config.trainer.logger:
            # What was logged after the checkpoint is logged again: TensorBoard forgets the first.
            config.trainer.logger.init_args["purge_step"] = read_checkpoint(path)["global_step"]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run shows: a bar on a terminal, plain lines elsewhere, curves, pictures, a table."""
        config = self._get(self.config_init, "trainer")
        callbacks: list[Callback] = [
            StepRandomness(),
            FiniteLoss(),
            ResultTable(),
            Throughput(),
            SequencePictures(),
        ]
        if config.get("logger"):
            callbacks.append(LearningRateMonitor("step"))
        if not sys.stdout.isatty() and config.get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = False
            callbacks.append(EpochLines())
        kwargs["callbacks"] = [*callbacks, *_several(config.get("callbacks")), GracefulStop()]
        kwargs["plugins"] = [*_several(config.get("plugins")), AtomicCheckpointIO()]
        if config.get("accelerator") == "auto" and MPSAccelerator.is_available():
            kwargs["accelerator"] = "cpu"
            Console().print(
                "On the CPU: no relevance has been checked on Apple's GPU. To use it: --trainer.accelerator mps"
            )
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
            asked = ", ".join(
                f"trainer.{key}={config.get(key)}" for key in ("accelerator", "devices", "precision")
            )
            raise ValueError(
                f"no trainer can be made with {asked}: {error}\nWithout a GPU, leave these three out."
            ) from error
        cores = os.cpu_count() or 1
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
            raise ValueError(
                f"trainer.devices={trainer.num_devices} processes on the CPU, but this machine has {cores} cores: "
                f"use at most {cores}"
            )
        return trainer

    def after_fit(self) -> None:
        """Test the best checkpoint, and note the hyperparameters beside its results.

        Of several checkpoint callbacks, the last one, which is the `checkpoint` of the configuration, says what is
        tested for `results.json`; the best of another, named x.ckpt, is tested for `results-x.json`.
        """
        trainer = self.trainer
        if getattr(trainer, "fast_dev_run", False) or trainer.interrupted:
            return
        paths = [getattr(callback, "best_model_path", "") for callback in trainer.checkpoint_callbacks]
        *others, best = paths or [""]
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        table = next(callback for callback in callbacks if isinstance(callback, ResultTable))
        for other in filter(None, others):
            table.file = f"results-{Path(other).stem}.json"
            self._test(other)
        table.file = "results.json"
        if not best and trainer.is_global_zero:
            Console().print(
                "There was no validation, so there is no best checkpoint: the last weights are tested."
            )
        self._test(best)
        if trainer.logger is not None:
            final = {f"final/{name}": value for name, value in trainer.callback_metrics.items()}
            chosen = self.config[self.subcommand]
            trainer.logger.log_hyperparams({"model": chosen.model.as_dict(), "data": chosen.data.as_dict()}, final)
            trainer.logger.save()

    def _test(self, checkpoint: str) -> None:
        """Test a checkpoint of this fit, or the weights as they are."""
        self.trainer.test(
            None if checkpoint else self.model,
            datamodule=self.datamodule,
            ckpt_path=checkpoint or None,
            verbose=False,
            weights_only=bool(checkpoint),
        )

    def validate(self, **kwargs: Any) -> None:
        """Our own table is shown instead of Lightning's."""
        self.trainer.validate(**{**kwargs, "verbose": False})

    def test(self, **kwargs: Any) -> None:
        """Our own table is shown instead of Lightning's."""
        self.trainer.test(**{**kwargs, "verbose": False})

    def predict(self, **kwargs: Any) -> None:
        """Write `predictions.csv`, one row a test sequence."""
        write_predictions(self.trainer, self.trainer.predict(**{**kwargs, "return_predictions": True}) or [])


def _several(given: Any) -> list[Any]:
    """What may be given as nothing, one, or a list."""
    return given if isinstance(given, list) else [] if given is None else [given]


class _NoTips(logging.Filter):
    """Drops Lightning's advertisements from the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "Tip:" not in record.getMessage()


def run(arguments: list[str]) -> None:
    """Parse `arguments` and run the command they name."""
    # Lightning's about torch, and about a checkpoint of another run, whose files stay that run's.
    for message in (".*isinstance.treespec, LeafSpec.*", "The dirpath has changed from"):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_NoTips())
    sys.argv[1:] = arguments
    RnnxCLI(args=None)
