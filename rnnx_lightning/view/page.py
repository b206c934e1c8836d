"""Writes the page: data, template, style and script in one file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from rnnx_lightning.files import written_whole

FOLDER = Path(__file__).parent / "templates"


def embedded(record: Mapping[str, Any]) -> str:
    """JSON that can stand in a script element, whatever its strings contain."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def write_page(record: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page as one self-contained file.

    Args:
        record: see `recorded`.
        path: of the file.

    Returns:
        The path.
    """
    templates = Environment(loader=PackageLoader("rnnx_lightning.view"), autoescape=select_autoescape())
    page = templates.get_template("view.html").render(
        title=", ".join(record["networks"]),
        data=Markup(embedded(record)),
        style=Markup((FOLDER / "view.css").read_text()),
        script=Markup((FOLDER / "view.js").read_text()),
    )
    path = Path(path)
    with written_whole(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path
