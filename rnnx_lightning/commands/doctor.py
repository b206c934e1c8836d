"""`rnnx doctor`: versions, devices, data, and what is missing."""

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

NEEDED = (  # the dependencies in pyproject.toml
    "torch", "torchvision", "lightning", "torchmetrics", "jsonargparse", "docstring-parser", "tensorboard", "rich",
    "matplotlib", "scikit-learn", "pandas", "tabulate", "scipy", "joblib", "jinja2", "pillow", "safetensors",
    "vl-convert-python",
)  # fmt: skip
OPTIONAL = {
    "captum": "captum's methods",
    "zennit": "tests and benchmarks",
    "quantus": "Quantus' scores",
    "distributed": "rnnx compare --cluster",
    "mlflow": "MLFlowLogger",
    "wandb": "WandbLogger",
}
Row = tuple[str, str, str]


def findings() -> Iterator[Row]:
    """Rows of the table: a name, "yes" (found), "no" (missing) or "-" (not found, not required), and a remark."""
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
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield "GPU", "-", f"none found; torch is {build}"
    folder = default_data_dir()
    origin = "from RNNX_DATA_DIR" if os.environ.get("RNNX_DATA_DIR") else "default; set RNNX_DATA_DIR to change it"
    yield "data", "yes" if folder.is_dir() else "-", f"{folder.resolve()} ({origin})"
    for name in DATASETS:
        missing = missing_files(name, folder)
        remark = f"missing files, fetched when first used: {', '.join(missing)}" if missing else "complete"
        yield name, "-" if missing else "yes", remark


def _version(name: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # such as mlflow, of the package mlflow-skinny
        return None if importlib.util.find_spec(name) is None else "version unknown"


def main(arguments: list[str]) -> None:
    """Print the table; exit with 1 if a required package is missing."""
    parser = ArgumentParser(
        prog="rnnx doctor",
        exit_on_error=False,
        allow_abbrev=False,
        description="Print versions, devices, where data is looked for, and what is missing.",
    )
    parse(parser, arguments)
    rows = list(findings())
    table = Table(box=None, pad_edge=False)
    for title in ("", "found", ""):
        table.add_column(title, overflow="fold")
    for name, there, remark in rows:
        colour = {"yes": "green", "no": "red", "-": "dim"}[there]
        table.add_row(name, f"[{colour}]{there}[/]", escape(remark))
    console = Console()
    console.print(table)
    missing = [name for name, there, _ in rows if there == "no"]
    console.print(f"Missing: {', '.join(missing)}" if missing else "All required packages are installed.")
    sys.exit(1 if missing else 0)
