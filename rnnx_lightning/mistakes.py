"""Messages about a command line, or a configuration, that cannot be understood."""

import difflib
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

# Where a value could be of several types, jsonargparse reports on each of them; these lines do not help.
UNHELPFUL = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Given value type:",
    "Given value: Namespace",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
)
# Options and callbacks of earlier versions, and their new names.
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
CONFIG = "Unexpected config:"
REQUIRED = "the following arguments are required: "
NO_NETWORK = "there is no network: --config NAME (such as --config convdeep), or --model.network NAME"
KINDS = {  # what jsonargparse expects, as it is written on a command line
    "dict": "names and values, such as --methods.NAME VALUE for each of several methods",
    "list": "a list, such as '[0, 1]'",
}


class UsageError(Exception):
    """The command line, or a configuration, cannot be understood. The message says where, and what to write."""


def did_you_mean(given: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Ask whether the most similar of `known` was meant; empty if none is similar enough."""
    nearest = difflib.get_close_matches(given, list(known), n=1, cutoff=likeness)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def parse(parser: "ArgumentParser", arguments: list[str], command: "ArgumentParser | None" = None) -> "Namespace":
    """Parse a command line.

    Args:
        parser: made with `exit_on_error=False`.
        arguments: words of the command line.
        command: the parser of the subcommand, whose options are suggested for a misspelt one; default: `parser`.

    Raises:
        UsageError: it cannot be understood.
    """
    from jsonargparse import ArgumentError

    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        raise UsageError(_message(str(error), command or parser, arguments)) from error


def _message(said: str, parser: "ArgumentParser", arguments: list[str]) -> str:
    """The message of jsonargparse in short, with suggestions, and the config files that were read."""
    words = [word.partition("=")[0].strip("'\":,.") for word in said.split()]
    options = _options(parser)
    lines = [
        f"{old} is now {new}"
        for old, new in RENAMED.items()
        if {old, f"--{old}", CALLBACKS + old}.intersection(words) and f"--{old}" not in options
    ]
    if not lines:
        told = [line for line in said.splitlines() if line.strip() and not line.strip(" -").startswith(UNHELPFUL)]
        if told[0].startswith(REQUIRED):
            return f"{_required(told[0], arguments)}\n({_help(parser)})"
        lines = [_in_plain_words(_of_class(line)) for line in dict.fromkeys(told)] + _nearest(words, options)
        lines += _other_command(said, parser)
    if files := _configs(arguments):
        lines.append(f"config files, in this order: {', '.join(files)}")
    return "\n".join([*lines, f"({_help(parser)})"])


def _help(parser: "ArgumentParser") -> str:
    return f"{parser.prog.replace(' [options]', '')} --help shows all options"


def _required(line: str, arguments: list[str]) -> str:
    """What is missing, by its name on the command line, which has no subcommand in it."""
    names = [name.removeprefix(f"{' '.join(arguments[:1])}.") for name in line.removeprefix(REQUIRED).split(", ")]
    return NO_NETWORK if names == ["model.network"] else f"missing: {', '.join(f'--{name}' for name in names)}"


def _in_plain_words(line: str) -> str:
    """The line, with types and configs as a user writes them."""
    if line.startswith(CONFIG):
        found = line.removeprefix(CONFIG).strip()
        return f"a config must map options to values, but one is {repr(found) if found else 'empty'}"
    return re.sub(r"a <class '(\w+)'>", lambda found: KINDS.get(found[1], found[0]), line)


def _options(parser: "ArgumentParser") -> set[str]:
    """The options of a parser, as they are written on the command line."""
    keys = parser.get_defaults().keys(branches=True)
    return {"--help", "--print_config", *(f"--{key.replace('.init_args', '')}" for key in keys)}


def _nearest(words: list[str], options: Iterable[str]) -> list[str]:
    """Suggestions for the words that look like options but are none."""
    unknown = {f"--{word.lstrip('-')}" for word in words if word.startswith("--") or "." in word or "_" in word}
    hints = {word: did_you_mean(word, options, 0.8) for word in sorted(unknown.difference(options))}
    return [f"{word}:{hint}" for word, hint in hints.items() if hint]


def _of_class(line: str) -> str:
    """The line; if it is about an unknown class, in plain words, with a suggestion."""
    before, _, name = line.partition(NO_CLASS)
    if not name:
        return line
    from torch import optim

    from rnnx_lightning import architectures, callbacks, explain, metrics

    known = [name for room in (architectures, callbacks, explain, metrics, optim) for name in room.__all__]
    return f"{before}there is no such class: {name}.{did_you_mean(name, known, 0.8)}"


def _other_command(said: str, parser: "ArgumentParser") -> list[str]:
    """The command that a config is for, if it is given to another one."""
    option = re.search(r"[oO]ption '(\w+)", said)
    first = option[1] if option else ""
    if "compare" in parser.prog:
        of_a_run = first in ("model", "data", "optimizer", "lr_scheduler", "trainer")
        return [f"a config with {first} is of one run: rnnx fit --config NAME"] if of_a_run else []
    return ["a config with networks is a study: rnnx compare --config NAME"] if first == "networks" else []


def _configs(arguments: list[str]) -> list[str]:
    """The values of all `--config` options."""
    words = [part for word in arguments for part in (word.split("=", 1) if "--config=" in word else [word])]
    return [after for word, after in pairwise(words) if word == "--config"]


def at_heart(error: Exception) -> Exception:
    """The error of the class's own constructor, where jsonargparse has wrapped it in a report on several types."""
    while str(error).startswith(UNION) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
