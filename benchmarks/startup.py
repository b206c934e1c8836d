"""How long a user waits before anything happens."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GOALS = {"rnnx --help": 1.0, "rnnx fit to its first step": 6.0}
PARTS = {
    "import torch": "torch",
    "import lightning": "lightning",
    "import rnnx_lightning.cli": "rnnx_lightning.cli",
}
WATCH = """
import sys
from rnnx_lightning.process import importing
with importing():  # as the command does
    from rnnx_lightning.classifier import SequenceClassifier
def first(self, *arguments):
    sys.exit(0)
SequenceClassifier.training_step = first
from rnnx_lightning.__main__ import main
main()
"""


def _seconds(*command: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=dict(os.environ),
            check=False,
            capture_output=True,
            timeout=120,
        )
        return time.perf_counter() - start


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each wait: the best of three, because the files are then in memory."""
    config = str(ROOT / "configs" / "quick.yaml")
    commands = {
        "rnnx --help": ("-m", "rnnx_lightning", "--help"),
        "rnnx fit to its first step": ("-c", WATCH, "fit", "--config", config),
        **{part: ("-c", f"import {module}") for part, module in PARTS.items()},
    }
    return [
        {
            "what": name,
            "seconds": min(_seconds(*command) for _ in range(3)),
            "goal": GOALS.get(name),
        }
        for name, command in commands.items()
    ]
