"""Trains what has not been trained yet, in parallel, each run in a process of its own."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import joblib
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rnnx_lightning.compare.study import Run

LOG = "run.log"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: the run.
        state: "done", "was done" or "failed".
        reason: the last line that a failed run printed.
    """

    run: Run
    state: str
    reason: str = ""


def execute(run: Run, number: int, jobs: int) -> Outcome:
    """Train one run, unless it is finished; go on where it was interrupted.

    Args:
        run: what to train.
        number: of the run in the study; decides which GPU it gets.
        jobs: how many runs go on at the same time.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / ".lock").open("w") as lock:
        # The training process inherits the lock: where the one that started it was killed, it is waited for.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if run.results.exists():
            return Outcome(run, "was done")
        return _train(run, number, jobs, lock.fileno())


def _train(run: Run, number: int, jobs: int, lock: int) -> Outcome:
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // jobs, 1)))
    if torch.cuda.is_available():
        environment.setdefault("CUDA_VISIBLE_DEVICES", str(number % torch.cuda.device_count()))
    command = [sys.executable, "-m", "rnnx_lightning", *run.command]
    with (run.folder / LOG).open("a") as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, pass_fds=(lock,), check=False
        )
    code = done.returncode
    if code == 0 and run.results.exists():
        return Outcome(run, "done")
    lines = [line for line in (run.folder / LOG).read_text(errors="replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    return Outcome(run, "failed", said or f"exit code {code}")


def run_all(runs: Sequence[Run], jobs: int) -> list[Outcome]:
    """Run what is missing, and show how far it is.

    Args:
        runs: of a study.
        jobs: how many at the same time.

    Returns:
        One outcome a run; a failed run does not stop the others.
    """
    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("runs", total=len(runs))
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        tasks = (joblib.delayed(execute)(run, number, jobs) for number, run in enumerate(runs))
        for outcome in parallel(tasks):
            outcomes.append(outcome)
            progress.console.print(
                f"{outcome.run.title}: {outcome.state}{f' ({outcome.reason})' if outcome.reason else ''}",
                markup=False,
                soft_wrap=True,
            )
            progress.advance(task)
    return outcomes
