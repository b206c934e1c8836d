"""`rnnx doctor`: versions, devices, where data is looked for, and what is missing."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rnnx_lightning import __version__
from rnnx_lightning.data.images import DATASETS, default_data_dir, missing_files
from rnnx_lightning.mistakes import parse

NEEDED = ("torch", "torchvision", "lightning", "torchmetrics", "jsonargparse", "matplotlib", "safetensors")
OPTIONAL = {
    "captum": "its methods in YAML",
    "zennit": "the tests and benchmarks",
    "quantus": "its scores of our methods",
    "distributed": "rnnx compare --cluster",
    "mlflow": "its logger",
    "wandb": "its logger",
}
Row = tuple[str, str, str]


def findings() -> Iterator[Row]:
    """What there is and what is missing: a name, "yes", "no" or "-" (not needed), and a remark each."""
    yield "rnnx", "yes", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    for name in NEEDED:
        version = _version(name)
        yield name, "yes" if version else "no", version or f"pip install {name}"
    for name, purpose in OPTIONAL.items():
        version = _version(name)
        yield name, "yes" if version else "-", version or f"only for {purpose}: pip install {name}"
    yield "CPU", "yes", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        yield f"GPU {number}", "yes", f"{device.name}, {device.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.device_count():
        build = f"made for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
        yield "GPU", "-", f"none is seen; torch is {build}"
    folder = default_data_dir()
    origin = "RNNX_DATA_DIR" if os.environ.get("RNNX_DATA_DIR") else "the default; RNNX_DATA_DIR names another"
    yield "data", "yes" if folder.is_dir() else "-", f"looked for in {folder.resolve()} ({origin})"
    for name in DATASETS:
        missing = missing_files(name, folder)
        remark = f"fetched when first used; missing: {', '.join(missing)}" if missing else "complete"
        yield name, "-" if missing else "yes", remark


def _version(name: str) -> str | None:
    """Of a package that can be imported."""
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def main(arguments: list[str]) -> None:
    """Print the table; exit with 1 where something that is needed is missing."""
    parser = ArgumentParser(
        prog="rnnx doctor",
        exit_on_error=False,
        allow_abbrev=False,
        description="Versions, devices, where data is looked for, and what is missing.",
    )
    parse(parser, arguments)
    rows = list(findings())
    table = Table(box=None, pad_edge=False)
    for title in ("", "there", ""):
        table.add_column(title, overflow="fold")
    for name, there, remark in rows:
        colour = {"yes": "green", "no": "red", "-": "dim"}[there]
        table.add_row(name, f"[{colour}]{there}[/]", escape(remark))
    console = Console()
    console.print(table)
    missing = [name for name, there, _ in rows if there == "no"]
    console.print(f"Missing: {', '.join(missing)}" if missing else "Nothing that is needed is missing.")
    sys.exit(1 if missing else 0)
