"""`rnnx compare`: runs a study and writes its tables, plots and report."""

import os
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from rich.console import Console

from rnnx_lightning.compare.report import write_report
from rnnx_lightning.compare.runner import run_all
from rnnx_lightning.compare.study import Run, Study, StudyError
from rnnx_lightning.mistakes import parse

ROOT = Path("logs") / "compare"


def main(arguments: list[str]) -> None:
    """Parse the arguments, train the networks that are not trained yet, and write the report."""
    parser = ArgumentParser(
        prog="rnnx compare",
        exit_on_error=False,
        allow_abbrev=False,
        description="Train many networks and compare them.",
    )
    parser.usage = "rnnx compare --config FILE [--seeds [0,1,2] | --folds 10] [options]"
    parser.add_argument("--config", action="config", help="a study, for example compare/experiment1")
    parser.add_class_arguments(Study)
    parser.add_argument(
        "--jobs",
        type=int,
        default=max(torch.cuda.device_count(), 1),
        help="number of runs at a time (default: one per GPU)",
    )
    parser.add_argument("--cluster", type=str, help="address of a Dask scheduler whose workers see this folder")
    chosen = parse(parser, arguments)
    jobs, cluster = chosen.pop("jobs"), chosen.pop("cluster")
    if jobs < 1:
        raise StudyError(f"jobs={jobs} must be at least 1")
    chosen.pop("config", None)
    study = Study(**chosen.as_dict())
    runs = study.runs(ROOT)
    _check_options([run for run in runs if not run.results.exists()])
    console = Console()
    console.print(
        f"{study.name}: {len(runs)} runs, {jobs} at a time, {os.cpu_count()} cores; logs in {ROOT / 'runs'}"
    )
    outcomes = run_all(runs, jobs, cluster)
    report = write_report(study, runs, outcomes, ROOT)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if report is not None:
        console.print(f"Report: {report}\nTables: {report.parent / 'summary.md'}", soft_wrap=True)
    if failed:
        raise StudyError(
            f"{len(failed)} of {len(runs)} runs failed:\n"
            + "\n".join(
                f"  {outcome.run.title}: {outcome.reason} ({outcome.run.folder}/run.log)" for outcome in failed
            )
        )


def _check_options(runs: list[Run]) -> None:
    """Refuse misspelt options before any training starts. A network's runs differ in data and seeds only."""
    from rnnx_lightning.cli import check  # imports Lightning, which the help need not wait for

    for run in {run.network: run for run in runs}.values():
        check(["fit", *run.arguments])
