"""What several test files share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from limits import TIME_LIMIT_S
from paths import ROOT


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder with the original MNIST files; tests that want it skip where there is none."""
    for folder in (os.environ.get("RNNX_DATA_DIR"), ROOT.parent / "shared" / "data"):
        if folder and (Path(folder) / "MNIST" / "raw").is_dir():
            return Path(folder)
    pytest.skip("the real MNIST is neither under RNNX_DATA_DIR nor in ../shared/data")


@pytest.fixture
def rnnx(tmp_path):
    """Runs the command line in a fresh folder, as a user would."""

    def run(*arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "rnnx_lightning", *map(str, arguments)],  # as the script `rnnx` does
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **environment},
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
        )
        if check:
            assert done.returncode == 0, done.stderr[-3000:]
        return done

    return run
