"""Runs the benchmarks: `make bench`, or `python -m benchmarks --only explain --device cuda`."""

import argparse
import gc
import json
import logging
import os
import platform
import subprocess
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import explain, growth, long, recurrent, startup, totals, train
from rnnx_lightning.process import denormals_flushed, keep_freed_memory, look_for_no_driver

PARTS = {
    "explain": explain.measure,
    "train": train.measure,
    "recipe": train.published_recipe,
    "growth": growth.measure,
    "recurrent": recurrent.measure,
    "long": long.measure,
    "totals": totals.measure,
    "startup": startup.measure,
}
OUT = Path("logs") / "benchmarks"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)"
    )
    parser.add_argument(
        "--device", type=torch.device, default=None, help="default: cuda if there is one, else cpu"
    )
    parser.add_argument("--batch", type=int, default=None, help="sequences (default: 256 on a CPU, 4096 on a GPU)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count")
    parser.add_argument(
        "--networks", nargs="+", choices=train.NETWORKS, default=train.NETWORKS, help="to train (default: all)"
    )
    parser.add_argument("--steps", type=int, default=60, help="training steps of a round")
    parser.add_argument("--epochs", type=int, default=12, help="that configs/convdeep.yaml trains")
    options = parser.parse_args()
    if options.device is None:
        options.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.batch = options.batch or (256 if options.device.type == "cpu" else 4096)
    return options


def _show(console: Console, part: str, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "refusal"))  # that is for the file
    table = Table(title=part, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column == "method")
    for row in rows:
        cells = (row.get(column) for column in columns)
        table.add_row(*("" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v) for v in cells))
    console.print(table)


def _processor() -> str:
    """The processor's name and the widest instructions that torch uses of it."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")  # on Linux `platform` knows only the architecture
    if described.exists():
        models = [line.partition(": ")[2] for line in described.read_text().splitlines() if "model name" in line]
        name = next(iter(models), name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _machine(device: torch.device) -> dict[str, str]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "device": f"{device.type}: {name}",
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        **{package: version(package) for package in ("torch", "lightning", "captum", "zennit")},
    }


def main() -> None:
    """Run the parts that are asked for; print a table of each and leave one JSON file."""
    # As `rnnx` does; all candidates profit.
    keep_freed_memory()
    look_for_no_driver()
    gc.freeze()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # or each of many short fits says hello
    warnings.filterwarnings("ignore", module="lightning")
    options, console = _arguments(), Console()
    results: dict[str, Any] = {"machine": _machine(options.device)}
    console.print(results["machine"])
    for part in options.only:
        with denormals_flushed():
            results[part] = PARTS[part](options)
        _show(console, part, results[part])
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{options.device.type}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Numbers: {path}")


if __name__ == "__main__":
    main()
