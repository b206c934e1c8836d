"""The commands fit, validate, test and predict: LightningCLI with our defaults, callbacks and messages."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from rich.console import Console

import rnnx_lightning.architectures  # noqa: F401  (so that `class_path: ConvDeep` is known)
from rnnx_lightning.callbacks import (
    BestAndLast,
    EpochLines,
    FiniteLoss,
    GracefulStop,
    PredictionTable,
    ResultTable,
    Resuming,
    SequencePictures,
    StepRandomness,
    Throughput,
)
from rnnx_lightning.callbacks.folder import removed_if_refused, tensorboards
from rnnx_lightning.callbacks.keeping import best_and_last
from rnnx_lightning.callbacks.stopping import unfinished
from rnnx_lightning.checkpoints import AtomicCheckpointIO, check_same_network
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.mistakes import parse
from rnnx_lightning.runs import (
    RunConfig,
    check_start,
    folder_without_logger,
    hyperparameters,
    keep_tables,
    newest,
    set_loggers,
    several,
)
from rnnx_lightning.schedule import ADAM, ONE_CYCLE

DESCRIPTIONS = {  # Lightning's own end within a sentence
    "fit": "Train a network, validate it after each epoch, and test its best checkpoint.",
    "validate": "Evaluate a checkpoint on the validation sequences.",
    "test": "Evaluate a checkpoint on the test sequences.",
    "predict": "Write the predictions of the test sequences by a checkpoint to a table.",
}


class RnnxCLI(LightningCLI):
    """LightningCLI for `SequenceClassifier` and `MajoritySequences`."""

    def __init__(self, args: list[str]) -> None:
        self._parsers: list[LightningArgumentParser] = []  # of the subcommands, in their order
        usage = {
            command: {
                "usage": f"rnnx {command} [--config FILE] [options]   (rnnx {command} --help)",
                "description": DESCRIPTIONS[command],
            }
            for command in self.subcommands()
        }
        super().__init__(
            SequenceClassifier,
            MajoritySequences,
            args=args,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # `allow_abbrev`: a misspelt option is refused, not completed.
            parser_kwargs={"prog": "rnnx", "allow_abbrev": False, "exit_on_error": False, **usage},
            save_config_callback=RunConfig,
            # Explanations after validation need gradients, which tensors made under inference mode refuse.
            trainer_defaults={"inference_mode": False, "max_epochs": 10, "log_every_n_steps": 10},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add options for the checkpoint callback, which every run has, the optimiser and its schedule."""
        self._parsers.append(parser)
        parser.add_lightning_class_args(BestAndLast, "checkpoint")
        parser.add_optimizer_args()
        parser.add_lr_scheduler_args()
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/accuracy",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "optimizer": ADAM,
                "lr_scheduler": ONE_CYCLE,
                "trainer.callbacks": [{"class_path": "rnnx_lightning.callbacks.Explainability"}],
            }
        )
        # The model creates both, because a resumed run creates them again, which LightningCLI does not support.
        for key in ("optimizer", "lr_scheduler"):
            parser.link_arguments(key, f"model.{key}", compute_fn=_described)
        parser.link_arguments("data.columns", "model.network.init_args.columns")
        parser.link_arguments("model.classes", "model.network.init_args.classes")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse. Lightning's method would warn whenever `args` are given."""
        assert isinstance(args, list)
        parsers = dict(zip(self.subcommands(), self._parsers, strict=True))
        self.config = parse(parser, args, parsers[args[0]])
        seed = self.config[self.config["subcommand"]].get("seed_everything")
        if isinstance(seed, int) and not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise ValueError(f"seed_everything={seed} must lie between 0 and {2**32 - 1}")

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint for `--ckpt_path last`; refuse a damaged one, and one of another network.

        This replaces a private method, as there is no public way to turn it off: Lightning would silently prefer
        the checkpoint's hyperparameters to the configuration.
        """
        config = self.config[self.config["subcommand"]]
        if "weights_only" in config:
            config.weights_only = True  # Lightning's own default would unpickle anything
        path = config.get("ckpt_path")
        if path is None and self.config["subcommand"] != "fit":
            Console(stderr=True).print(
                "There is no --ckpt_path, so the network has random weights. To use a trained one: --ckpt_path "
                "logs/NAME/version_0/checkpoints/best.ckpt",
                soft_wrap=True,
            )
        if path is None:
            return
        if path in ("last", "best"):
            path = config.ckpt_path = str(newest(path, config))
        check_same_network(path, config.model.network.as_dict())

    def before_instantiate_classes(self) -> None:
        """Log to TensorBoard, unless the user chose otherwise."""
        set_loggers(self.config[self.subcommand], str(self.subcommand))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks of every run; show a progress bar on a terminal, and one line per epoch elsewhere."""
        config = self.config_init[self.subcommand].trainer
        callbacks: list[Callback] = [
            StepRandomness(),
            FiniteLoss(),
            Resuming(),
            ResultTable(),
            Throughput(),
            SequencePictures(),
            PredictionTable(),
        ]
        if config.get("logger"):
            callbacks.append(LearningRateMonitor("step"))
        else:
            kwargs["default_root_dir"] = folder_without_logger(self.config[self.subcommand], str(self.subcommand))
        if not sys.stdout.isatty() and config.get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = False
            callbacks.append(EpochLines())
        kwargs["callbacks"] = [*callbacks, *several(config.get("callbacks")), GracefulStop()]
        kwargs["plugins"] = [*several(config.get("plugins")), AtomicCheckpointIO()]
        if config.get("accelerator") == "auto" and MPSAccelerator.is_available():
            kwargs["accelerator"] = "cpu"
            Console().print(
                "Running on the CPU: explanations have not been tested on Apple's GPU. To use it all the same: "
                "--trainer.accelerator mps",
                soft_wrap=True,
            )
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
            asked = ", ".join(
                f"trainer.{key}={config.get(key)}" for key in ("accelerator", "devices", "precision")
            )
            raise ValueError(
                f"the trainer cannot be set up with {asked}: {error}\nWithout a GPU, leave these three out."
            ) from error
        cores = os.cpu_count() or 1
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
            raise ValueError(
                f"trainer.devices={trainer.num_devices} processes on the CPU, but this machine has {cores} cores: "
                f"use at most {cores}"
            )
        keep_tables(trainer)
        return trainer

    def before_fit(self) -> None:
        """Refuse to overwrite other runs, before anything is written."""
        check_start(self.trainer, self.config[self.subcommand].ckpt_path)

    def after_fit(self) -> None:
        """Test the best checkpoint, and log hyperparameters and results to TensorBoard.

        `results.json` is about the best checkpoint of the configuration's callback. If another checkpoint callback
        keeps a best one, x.ckpt, its results go to `results-x.json`.
        """
        trainer = self.trainer
        if getattr(trainer, "fast_dev_run", False) or trainer.interrupted:
            return
        main = best_and_last(trainer)
        best = "" if main is None else main.best_model_path
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        table = next(callback for callback in callbacks if isinstance(callback, ResultTable))
        others = [getattr(c, "best_model_path", "") for c in trainer.checkpoint_callbacks if c is not main]
        for other in filter(None, others):
            table.file = f"results-{Path(other).stem}.json"
            self._test(other)
        table.file = "results.json"
        if not best and trainer.is_global_zero:
            Console().print("There was no validation, so there is no best checkpoint. Testing the last weights.")
        self._test(best)
        final = {f"final/{name}": value for name, value in trainer.callback_metrics.items()}
        for logger in tensorboards(trainer):
            logger.log_hyperparams(hyperparameters(self.config[self.subcommand]), final)
            logger.save()

    def _test(self, checkpoint: str) -> None:
        """Test a checkpoint of this fit; if its path is empty, the current weights."""
        self._whole(
            self.trainer.test,
            model=None if checkpoint else self.model,
            datamodule=self.datamodule,
            ckpt_path=checkpoint or None,
            verbose=False,
            weights_only=bool(checkpoint),
        )

    def fit(self, **kwargs: Any) -> None:
        """Run it. If it is refused, no folder is left."""
        with removed_if_refused(self.trainer):
            self.trainer.fit(**kwargs)

    def validate(self, **kwargs: Any) -> None:
        """Run it without Lightning's table, as `ResultTable` prints one."""
        self._whole(self.trainer.validate, **{**kwargs, "verbose": False})

    def test(self, **kwargs: Any) -> None:
        """Run it without Lightning's table, as `ResultTable` prints one."""
        self._whole(self.trainer.test, **{**kwargs, "verbose": False})

    def predict(self, **kwargs: Any) -> None:
        """Run it without returning predictions, as `PredictionTable` writes them."""
        self._whole(self.trainer.predict, **{**kwargs, "return_predictions": False})

    def _whole(self, run: Callable[..., Any], **kwargs: Any) -> None:
        """Validate, test or predict.

        Raises:
            InterruptedRunError: it was stopped before its first batch. Lightning would end it as if all were done.
        """
        with removed_if_refused(self.trainer):
            run(**kwargs)
        if self.trainer.received_sigterm:
            raise unfinished(self.trainer, signal.SIGTERM)


def _described(chosen: Namespace | None) -> dict[str, Any] | None:
    """Class path and arguments as plain data. Tuples become lists, as YAML has no tuples."""
    if chosen is None:
        return None
    arguments = chosen.get("init_args") or Namespace()
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(arguments).items()}
    return {"class_path": chosen.class_path, "init_args": plain}


class _NoTips(logging.Filter):
    """Removes Lightning's tips from the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "Tip:" not in record.getMessage()


def check(arguments: list[str]) -> None:
    """Refuse a command line that cannot be understood; run nothing.

    Raises:
        UsageError: an option or a config cannot be understood.
    """
    with redirect_stdout(StringIO()), suppress(SystemExit):
        RnnxCLI([*arguments, "--print_config"])


def main(arguments: list[str]) -> None:
    """Run a command: `arguments` are its name and its options."""
    # Lightning's warnings about torch; about folders of other runs, whose files we never overwrite (`runs`); and
    # about our loader, whose order `PredictionTable` knows.
    for message in (
        ".*isinstance.treespec, LeafSpec.*",
        "The dirpath has changed from",
        "Checkpoint directory .* exists and is not empty",
        "Experiment logs directory .* exists and is not empty",
        "Couldn't infer the batch indices fetched from your dataloader",
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_NoTips())
    RnnxCLI(arguments)
