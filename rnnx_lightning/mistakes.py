"""What is said of a command line, or a configuration, that cannot be understood."""

import difflib
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

# What jsonargparse says around what was wrong, of each type that a value could have been of.
AROUND = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Given value type:",
    "Given value: Namespace",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
)
# What was called otherwise before, and how to say it now.
RENAMED = {
    "model.learning_rate": "--optimizer.lr",
    "model.schedule": "--lr_scheduler, which takes a class (OneCycle) or null for a constant learning rate",
    "data.fresh": "--data.sampling: pooled for true, published for false",
    "CosineSimilarity": "part of Explainability, the callback that scores and draws",
    "Heatmaps": "part of Explainability, the callback that scores and draws",
}
CALLBACKS = "rnnx_lightning.callbacks."
UNION = "Does not validate against any of the Union subtypes"
NO_CLASS = "Expected a dot import path string: "


class UsageError(Exception):
    """The command line, or a configuration, cannot be understood; the message says where, and what to write."""


def did_you_mean(given: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """A question that names what is most like `given`, with a blank before it; empty where nothing is."""
    nearest = difflib.get_close_matches(given, list(known), n=1, cutoff=likeness)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def parse(parser: "ArgumentParser", arguments: list[str], command: "ArgumentParser | None" = None) -> "Namespace":
    """Parse a command line.

    Args:
        parser: made with `exit_on_error=False`.
        arguments: words of the command line.
        command: the parser of a subcommand, whose options are named where one is misspelt; default: `parser`.

    Raises:
        UsageError: it cannot be understood.
    """
    from jsonargparse import ArgumentError

    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        raise UsageError(_message(str(error), command or parser, arguments)) from error


def _message(said: str, parser: "ArgumentParser", arguments: list[str]) -> str:
    """What jsonargparse says without what surrounds it, what was meant, and where to look."""
    words = [word.partition("=")[0].strip("'\":,.") for word in said.split()]
    options = parser._option_string_actions
    lines = [
        f"{old} is now {new}"
        for old, new in RENAMED.items()
        if {old, f"--{old}", CALLBACKS + old}.intersection(words) and f"--{old}" not in options
    ]
    if not lines:
        told = [line for line in said.splitlines() if line.strip() and not line.strip(" -").startswith(AROUND)]
        lines = [_of_class(line) for line in dict.fromkeys(told)] + _nearest(words, options)
    if files := _configs(arguments):
        lines.append(f"config files, in this order: {', '.join(files)}")
    return "\n".join([*lines, f"({parser.prog.replace(' [options]', '')} --help shows all options)"])


def _nearest(words: list[str], options: Iterable[str]) -> list[str]:
    """For each word that could be meant as an option, the one most like it."""
    unknown = {f"--{word.lstrip('-')}" for word in words if word.startswith("--") or "." in word or "_" in word}
    hints = {word: did_you_mean(word, options, 0.8) for word in sorted(unknown.difference(options))}
    return [f"{word}:{hint}" for word, hint in hints.items() if hint]


def _of_class(line: str) -> str:
    """The line; where it is of a class that there is not, in plain words, with the one that was meant."""
    before, _, name = line.partition(NO_CLASS)
    if not name:
        return line
    from torch import optim

    from rnnx_lightning import architectures, callbacks, explain, metrics

    known = [name for room in (architectures, callbacks, explain, metrics, optim) for name in room.__all__]
    return f"{before}there is no such class: {name}.{did_you_mean(name, known, 0.8)}"


def _configs(arguments: list[str]) -> list[str]:
    """What follows each `--config`."""
    words = [part for word in arguments for part in (word.split("=", 1) if "--config=" in word else [word])]
    return [after for word, after in pairwise(words) if word == "--config"]


def at_heart(error: Exception) -> Exception:
    """What a class raised when it was made, where jsonargparse tells of all types that it could have been."""
    while str(error).startswith(UNION) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
