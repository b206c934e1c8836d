"""Files that are there whole or not at all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def with_suffixes(name: str, *suffixes: str) -> list[Path]:
    """Paths of files that differ in their suffixes; `name` may end with one of them already."""
    for suffix in suffixes:
        name = name.removesuffix(suffix)
    return [Path(name + suffix) for suffix in suffixes]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write what is then moved to `path`, so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write a file in one move, so that it is there whole or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
