"""The output of a study: tables, plots, a summary in Markdown, and an HTML report with all of it."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure

from rnnx_lightning.compare.gallery import draw_gallery
from rnnx_lightning.compare.plots import plot_cosines
from rnnx_lightning.compare.runner import Outcome
from rnnx_lightning.compare.study import Run, Study
from rnnx_lightning.compare.tables import (
    check_findings,
    collect,
    significance,
    summarise_accuracies,
    summarise_cosines,
)

HEADINGS = {
    "accuracy": "Test accuracy",
    "cosine": "Cosine similarity with the majority mask",
    "findings": "Published findings",
    "significance": "Significance between networks (ANOVA, Tukey HSD)",
}


def write_report(study: Study, runs: Sequence[Run], outcomes: Sequence[Outcome], root: Path) -> Path | None:
    """Write all tables, plots and reports of a study.

    Args:
        study: the study.
        runs: its runs.
        outcomes: how the runs ended.
        root: `logs/compare`.

    Returns:
        The path of the report, or None if no run has finished.
    """
    results = collect(runs)
    folder = root / study.name
    folder.mkdir(parents=True, exist_ok=True)
    if results.empty:
        return None
    results.to_csv(folder / "results.csv", index=False)
    cosines = summarise_cosines(results)
    tables = {
        "accuracy": summarise_accuracies(results),
        "cosine": cosines,
        "findings": check_findings(results),
        "significance": significance(results),
    }
    tables = {name: table for name, table in tables.items() if not table.empty}
    plot = plot_cosines(cosines, study.name)
    plot.savefig(folder / "cosine.png")
    plot.savefig(folder / "cosine.svg")
    galleries = draw_gallery(runs, study.gallery)
    for (dataset, network), figure in galleries.items():
        figure.savefig(folder / f"heatmaps-{dataset}-{network}.png")
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    (folder / "summary.md").write_text(_markdown(study, tables, failed))
    environment = Environment(
        loader=PackageLoader("rnnx_lightning.compare"), autoescape=select_autoescape(default=True)
    )
    page = environment.get_template("report.html").render(
        study=study,
        tables=[(HEADINGS[name], list(table.columns), _cells(table)) for name, table in tables.items()],
        plot=_data_uri(plot),
        galleries=[
            (f"{network}, {dataset}", _data_uri(figure)) for (dataset, network), figure in galleries.items()
        ],
        failed=failed,
        runs=[(run, _read(run.folder / "config.yaml"), _versions(run)) for run in runs if run.results.exists()],
    )
    report = folder / "report.html"
    report.write_text(page)
    return report


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [
        [_text(value, column) for column, value in zip(table.columns, row, strict=True)]
        for row in table.itertuples(index=False, name=None)
    ]


def _text(value: object, column: str) -> str:
    if isinstance(value, float):
        if pd.isna(value):
            return ""
        if column in ("epochs", "seconds"):
            return f"{value:.0f}"
        return f"{value:.2g}" if column.endswith(" p") else f"{value:.4f}" if column == "mean" else f"{value:.3f}"
    return str(value)


def _markdown(study: Study, tables: dict[str, pd.DataFrame], failed: Sequence[Outcome]) -> str:
    repetitions = f"{study.folds} folds" if study.folds else f"seeds {', '.join(map(str, study.seeds))}"
    parts = [f"# {study.name}\n\nNetworks: {', '.join(study.networks)}. {repetitions.capitalize()}."]
    if any("interval" in table and table["interval"].isna().all() for table in tables.values()):
        parts.append("There is only one run each, so there are no intervals and no tests of significance.")
    for name, table in tables.items():
        shown = pd.DataFrame(_cells(table), columns=table.columns)
        empty = [column for column in shown.columns if (shown[column] == "").all()]
        markdown = shown.drop(columns=empty).to_markdown(index=False, disable_numparse=True)
        parts.append(f"## {HEADINGS[name]}\n\n{markdown}")
    if failed:
        lines = [f"- {outcome.run.title}: {outcome.reason}" for outcome in failed]
        parts.append("## Failed runs\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _data_uri(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _versions(run: Run) -> str:
    content = json.loads(run.results.read_text())
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    return f"{content['devices']}; {versions}"
