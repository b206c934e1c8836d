"""The tables of CONTRIBUTING.md name all modules, and each module imports only from its own row and below."""

import ast
import re

import pytest
from paths import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def rows(folder):
    """The modules and packages in each row of the table about a folder, the lowest row first."""
    table = re.search(rf"^\| in `{folder}/` \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, flags=re.M)[1]
    return [re.findall(r"`([\w/.]+)`", line.split("|")[1]) for line in reversed(table.splitlines())]


def imported(path, folder):
    """The modules and packages of a folder that a file imports at its top; the first part of their names."""
    package = folder.replace("/", ".")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith(f"{package}."):
            yield node.module.removeprefix(f"{package}.").partition(".")[0]


@pytest.mark.parametrize("folder", ["rnnx_lightning", "rnnx_lightning/explain"])
def test_the_map_of_modules_is_complete_and_has_no_way_up(folder):
    place = {name.rstrip("/").removesuffix(".py"): row for row, names in enumerate(rows(folder)) for name in names}
    parts = [part for part in (ROOT / folder).iterdir() if part.suffix == ".py" or (part / "__init__.py").exists()]
    known = {part.stem: part for part in parts if part.name != "__init__.py"}
    assert place.keys() == known.keys()
    for name, part in known.items():
        for path in part.rglob("*.py") if part.is_dir() else [part]:
            up = {other for other in imported(path, folder) if place.get(other, -1) > place[name]}
            assert not up, f"{path.relative_to(ROOT)} imports {up}"
