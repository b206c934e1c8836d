"""The configurations that come with the package, found by name: `--config convdeep`."""

import re
from pathlib import Path

from rnnx_lightning.mistakes import UsageError, did_you_mean

FOLDER = Path(__file__).parent / "configs"  # in the repository a link to its `configs`
NAME = re.compile(r"[\w/-]+")


def known_configs() -> list[str]:
    """Names of all configurations in the package."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))


def find_config(given: str) -> str:
    """Find a configuration's file.

    Args:
        given: a path, or a name: "convdeep", "published/recipe" or "configs/convdeep.yaml". A file comes first.

    Returns:
        A path; `given` itself if it is a file, or does not look like a name.

    Raises:
        ValueError: it looks like a name, but there is no such file or configuration; or the file is not text.
    """
    if Path(given).is_file():
        try:
            Path(given).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{given} is no configuration: it is not text in UTF-8") from error
    if Path(given).exists():
        return given
    name = given.removeprefix("configs/").removesuffix(".yaml")
    known = known_configs()
    if name in known:
        return str(FOLDER / f"{name}.yaml")
    if NAME.fullmatch(given):
        raise ValueError(
            f"there is no configuration {given!r}, neither a file here nor among {', '.join(known)}."
            + did_you_mean(given, known)
        )
    return given


def named_configs(arguments: list[str]) -> list[str]:
    """Command-line arguments with the path of each `--config` in place of its name.

    Raises:
        UsageError: a name stands where `--config` was meant.
    """
    if arguments and arguments[0] in known_configs():
        raise UsageError(f"unrecognized argument: {arguments[0]}. Did you mean --config {arguments[0]}?")
    found = []
    follows = False
    for word in arguments:
        if follows:
            word = find_config(word)
        elif word.startswith("--config="):
            word = "--config=" + find_config(word.removeprefix("--config="))
        follows = word == "--config"
        found.append(word)
    return found
