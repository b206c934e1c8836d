"""Writing files completely or not at all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def with_suffixes(name: str, *suffixes: str) -> list[Path]:
    """Paths of files that differ in their suffixes; `name` may end with one of them already.

    Raises:
        ValueError: `name` is empty, or a folder's.
    """
    for suffix in suffixes:
        name = name.removesuffix(suffix)
    if not Path(name).name or name.endswith("/"):
        raise ValueError(f"{name!r} is no name for a file: add one, as in {Path(name, 'explanation')}")
    return [Path(name + suffix) for suffix in suffixes]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place to write a file that is moved to `path` at the end; after an error, nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, completely or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
