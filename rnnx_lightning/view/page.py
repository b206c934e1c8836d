"""Writes the page: data, template, style, scripts and the charts' library in one file."""

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from rnnx_lightning.files import written_whole

FOLDER = Path(__file__).parent / "templates"
SCRIPTS = ("packed.js", "charts.js", "view.js")  # in this order, one module


def packed(text: str) -> str:
    """Text as base64 of gzip, as the page unpacks it."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


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
        data=packed(json.dumps(record, separators=(",", ":"), allow_nan=False)),
        vega=packed(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
        style=Markup((FOLDER / "view.css").read_text()),
        script=Markup("\n".join((FOLDER / name).read_text() for name in SCRIPTS)),
    )
    path = Path(path)
    with written_whole(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path
