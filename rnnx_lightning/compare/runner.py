"""Trains the unfinished runs of a study in parallel, each in its own process."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import joblib
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rnnx_lightning.compare.study import Run, StudyError

LOG = "run.log"
CONNECT_TIMEOUT_S = 10
_trainings: set[subprocess.Popen[bytes]] = set()  # that this process waits for


class StoppedStudyError(Exception):
    """A study was asked to stop.

    Attributes:
        exit_code: 128 + the number of the signal, as is usual in shells.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("stopped; trainings have saved what they need, and the same command goes on with them")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: the run.
        state: "done", "was done" (before) or "failed".
        reason: the error line of a failed run.
    """

    run: Run
    state: str
    reason: str = ""


def execute(run: Run, number: int, jobs: int, place: Path) -> Outcome:
    """Train one run, unless it is finished; an interrupted run is resumed.

    Args:
        run: the run.
        number: number of the run in the study; it selects the GPU.
        jobs: number of runs at the same time.
        place: the folder that the run's paths are relative to.
    """
    folder = place / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        # The training process inherits the lock. If its parent was killed, the next attempt waits for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (place / run.results).exists():
            return Outcome(run, "was done")
        return _train(run, number, jobs, lock.fileno(), place)


def _train(run: Run, number: int, jobs: int, lock: int, place: Path) -> Outcome:
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // jobs, 1)))
    if torch.cuda.is_available():
        environment.setdefault("CUDA_VISIBLE_DEVICES", str(number % torch.cuda.device_count()))
    command = [sys.executable, "-m", "rnnx_lightning", *run.command]
    path = place / run.folder / LOG
    with path.open("a") as log:
        training = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, pass_fds=(lock,), cwd=place
        )
        _trainings.add(training)
        code = training.wait()
        _trainings.discard(training)
    if code == 0 and (place / run.results).exists():
        return Outcome(run, "done")
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    return Outcome(run, "failed", said or f"exit code {code}")


@contextmanager
def _stoppable() -> Iterator[None]:
    """On Ctrl-C or SIGTERM, stop all trainings, wait for them, and raise an exception."""

    def stop(number: int, frame: FrameType | None) -> None:
        for training in list(_trainings):
            training.terminate()
        raise StoppedStudyError(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for training in list(_trainings):
            training.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _engine(cluster: str | None) -> Iterator[None]:
    """Make joblib run here, or on a Dask cluster, which repeats the runs of lost workers.

    Raises:
        StudyError: Dask is not installed, or there is no cluster at the address.
    """
    if cluster is None:
        yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise StudyError("a cluster needs Dask: pip install 'rnnx-lightning[cluster]'") from error
    try:
        client = Client(cluster, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise StudyError(f"no Dask scheduler answers at {cluster!r}: {error}") from error
    with client, joblib.parallel_config(backend="dask"):
        yield


def run_all(runs: Sequence[Run], jobs: int, cluster: str | None = None) -> list[Outcome]:
    """Train all unfinished runs, and show progress.

    Args:
        runs: the runs of a study.
        jobs: number of runs at the same time; on a cluster, the number of workers decides.
        cluster: address of a Dask scheduler whose workers can access this folder; None for this machine.

    Returns:
        One outcome per run; a failed run does not stop the others.

    Raises:
        StudyError: the cluster cannot be reached.
        StoppedStudyError: on Ctrl-C or SIGTERM.
    """
    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _stoppable(), _engine(cluster), Progress(*columns) as progress:
        task = progress.add_task("runs", total=len(runs))
        # Threads do, as they only wait for the trainings.
        chosen = {"n_jobs": -1} if cluster else {"n_jobs": jobs, "backend": "threading"}
        parallel = joblib.Parallel(**chosen, return_as="generator_unordered")
        tasks = (joblib.delayed(execute)(run, number, jobs, Path.cwd()) for number, run in enumerate(runs))
        for outcome in parallel(tasks):
            outcomes.append(outcome)
            progress.console.print(
                f"{outcome.run.title}: {outcome.state}{f' ({outcome.reason})' if outcome.reason else ''}",
                markup=False,
                soft_wrap=True,
            )
            progress.advance(task)
    return outcomes
