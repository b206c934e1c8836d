"""Explanations of this checkout beside those of another one, in turns: how long each takes, and its peak memory.

    git worktree add ../before 35e9148
    python -m benchmarks.side_by_side ../before

Each checkout runs in a process of its own, which waits while the other one works.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).resolve().parents[1]
METHODS = ("Sensitivity", "GuidedBackprop", "Epsilon", "DeepTaylor", "LRP 1.5/0.5")
WORKER = """
import json, sys, time, warnings
import torch
from benchmarks.explain import METHODS, NETWORKS
from benchmarks.measure import peak_bytes
from rnnx_lightning import architectures
from rnnx_lightning.process import denormals_flushed, keep_freed_memory
warnings.simplefilter("ignore")
keep_freed_memory()
def made(name, batch):
    torch.manual_seed(0)
    network = getattr(architectures, name)().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape) / max(parameter[0].numel(), 1) ** 0.5)
    return network, torch.rand(batch, 1, 28, 84) * 2 - 1, torch.randint(0, 10, (batch,))
kept = {}
with denormals_flushed():
    print(json.dumps(list(NETWORKS)), flush=True)
    for line in sys.stdin:
        what, name, method, batch = json.loads(line)
        if name not in kept:
            kept = {name: made(name, batch)}
        run = lambda: METHODS[method](*kept[name])
        if what == "time":
            start = time.perf_counter(); run(); answer = time.perf_counter() - start
        else:
            answer = peak_bytes(run, torch.device("cpu"))
        print(json.dumps(answer), flush=True)
"""


class Checkout:
    """A process that runs explanations of one checkout.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.networks: list[str] = self._answer()

    def ask(self, *question: Any) -> float:
        """What a question is answered with."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__)
    parser.add_argument("before", type=Path, help="another checkout")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15, help="rounds that count")
    options = parser.parse_args()
    checkouts = {"before": Checkout(options.before.resolve()), "now": Checkout(HERE)}
    networks = checkouts["now"].networks
    table = Table("time, now / before", *METHODS)
    memory, ratios, peaks = Table("peak memory, now / before", *METHODS), [], []
    for name in track(networks, "networks", console=Console(stderr=True)):
        row, memory_row = [], []
        for method in METHODS:
            seconds: dict[str, list[float]] = {key: [] for key in checkouts}
            for repeat in range(options.repeats + 2):
                for key in random.sample(list(checkouts), 2):
                    taken = checkouts[key].ask("time", name, method, options.batch)
                    if repeat > 1:
                        seconds[key].append(taken)
            ratios.append(statistics.median(seconds["now"]) / statistics.median(seconds["before"]))
            used = {key: each.ask("memory", name, method, options.batch) for key, each in checkouts.items()}
            peaks.append(used["now"] / used["before"])
            row.append(f"{ratios[-1]:.2f}")
            memory_row.append(f"{peaks[-1]:.2f}")
        table.add_row(name, *row)
        memory.add_row(name, *memory_row)
    console = Console(width=120)
    console.print(table)
    console.print(memory)
    console.print(f"time: median {statistics.median(ratios):.3f}, worst {max(ratios):.2f}")
    console.print(f"peak memory: median {statistics.median(peaks):.3f}, worst {max(peaks):.2f}")


if __name__ == "__main__":
    main()
