"""A study: networks x data sets x seeds or folds, one training run each."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from rnnx_lightning.configs_by_name import find_config
from rnnx_lightning.data.images import check_known

NAME = re.compile(r"[\w.+-]+")


class StudyError(ValueError):
    """The study cannot be run; the message says why."""


@dataclass(frozen=True)
class Run:
    """One training run of a study.

    Attributes:
        network: name of the network in tables.
        dataset: name of the data set in tables; for a folder, its name without the path.
        repetition: the seed or the fold.
        folds: number of folds, or None if the repetitions are seeds.
        arguments: arguments of `rnnx fit`, without those for the folder.
        folder: the folder of the run.
    """

    network: str
    dataset: str
    repetition: int
    folds: int | None
    arguments: tuple[str, ...]
    folder: Path

    @property
    def title(self) -> str:
        """The name of the run in progress lines and tables."""
        kind = "seed" if self.folds is None else "fold"
        return f"{self.network}, {self.dataset}, {kind} {self.repetition}"

    @property
    def results(self) -> Path:
        """The results file, which exists if the run is finished."""
        return self.folder / "results.json"

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint of a finished run."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def command(self) -> list[str]:
        """The arguments of `rnnx`; an interrupted run is resumed from its last checkpoint."""
        logger = {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args.save_dir": str(self.folder.parent),
            "init_args.name": self.folder.name,
            "init_args.version": "",
            "init_args.default_hp_metric": "false",
        }
        command = ["fit", *self.arguments]
        command += [f"--trainer.logger.{key}={value}" for key, value in logger.items()]
        last = self.folder / "checkpoints" / "last.ckpt"
        return [*command, f"--ckpt_path={last}"] if last.exists() else command


def _title(dataset: str) -> str:
    return Path(dataset).resolve().name


@dataclass
class Study:
    """A comparison of networks.

    Attributes:
        name: tables, plots and the report are written to `logs/compare/<name>`.
        networks: by name in tables, the configs for `rnnx fit`; later configs override earlier ones.
        datasets: data sets that each network is trained on, as in `--data.dataset`.
        seeds: one run for each seed, which is used for everything.
        folds: cross-validation instead of seeds: the number of stratified folds, with one run for each. The number
            of the fold seeds the weights.
        chosen_folds: train only these folds (counted from 0); default: all.
        options: further options of `rnnx fit` for all runs, such as "--trainer.max_epochs=3".
        gallery: number of test sequences whose heatmaps are drawn for every network.
    """

    name: str
    networks: dict[str, list[str]]
    datasets: list[str] = field(default_factory=lambda: ["mnist"])
    seeds: list[int] = field(default_factory=lambda: [0])
    folds: int | None = None
    chosen_folds: list[int] | None = None
    options: list[str] = field(default_factory=list)
    gallery: int = 6

    def __post_init__(self) -> None:
        for name in (self.name, *self.networks):
            if not NAME.fullmatch(name) or name.strip(".") == "":
                raise StudyError(f"{name!r} is not a valid name: use letters, digits, '.', '_', '+' and '-'")
        for files in self.networks.values():
            for number, file in enumerate(files):
                files[number] = find_config(file)
                if not Path(files[number]).is_file():
                    raise StudyError(f"config {file!r} of a network does not exist (paths start at this folder)")
        if not self.networks or not self.datasets or not (self.seeds or self.folds):
            raise StudyError("a study needs at least one network, one data set, and one seed or two folds")
        for dataset in self.datasets:
            check_known(dataset)
        titles = [_title(dataset) for dataset in self.datasets]
        if repeated := [title for title in titles if titles.count(title) > 1]:
            raise StudyError(f"two data sets have the name {repeated[0]!r}")
        for option in ("seeds", "chosen_folds"):
            chosen = getattr(self, option) or []
            if twice := [number for number in chosen if chosen.count(number) > 1]:
                raise StudyError(f"{option}={chosen} has {twice[0]} more than once: a run counts once")
        if self.folds is not None and self.folds < 2:
            raise StudyError(f"folds={self.folds} must be at least 2")
        if self.chosen_folds is not None and not (
            self.chosen_folds and set(self.chosen_folds) <= set(range(self.folds or 0))
        ):
            raise StudyError(f"chosen_folds={self.chosen_folds} are not among the {self.folds or 'no'} folds")

    def runs(self, root: Path) -> list[Run]:
        """All runs. The same run in two studies shares one folder; a changed config gives another folder.

        Args:
            root: `logs/compare`.
        """
        runs = []
        repetitions = self.seeds if self.folds is None else self.chosen_folds or range(self.folds)
        for repetition in repetitions:
            for dataset in self.datasets:
                title = _title(dataset)
                for network, files in self.networks.items():
                    if self.folds is None:
                        what = [f"--seed_everything={repetition}", f"--data.seed={repetition}"]
                    else:
                        what = [f"--data.folds={self.folds}", f"--data.fold={repetition}"]
                        what.append(f"--seed_everything={repetition}")
                    options = [f"--data.dataset={dataset}", *what, *self.options]
                    key = hashlib.sha256(repr(options).encode())
                    for file in files:
                        key.update(Path(file).read_bytes())
                    kind = "seed" if self.folds is None else f"fold-of-{self.folds}-"
                    name = f"{network}-{title}-{kind}{repetition}-{key.hexdigest()[:8]}"
                    configs = [f"--config={file}" for file in files]
                    runs.append(
                        Run(network, title, repetition, self.folds, (*configs, *options), root / "runs" / name)
                    )
        return runs
