"""docs/results.md, made of the study's numbers.

    python docs/study/results.py                  # writes docs/results.md and docs/pictures/curve.png
    python docs/study/results.py --logs FOLDER    # first takes in the runs under FOLDER/logs/compare/runs

What was measured is in results.csv (a row a finished run and method) and curves.csv (a row a run, epoch and
method); what is said about it in results.md.j2.
"""

import argparse
import re
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnnx_lightning.compare.plots import COLOURS
from rnnx_lightning.compare.published import METHODS
from rnnx_lightning.compare.study import Run
from rnnx_lightning.compare.tables import (
    check_findings,
    collect,
    significance,
    summarise_accuracies,
    summarise_cosines,
)

HERE = Path(__file__).parent
FOLDER = re.compile(r"(?P<network>.+)-(?P<dataset>mnist|fashion_mnist)-fold-of-(?P<folds>\d+)-(?P<fold>\d+)-\w{8}")
STEPS_PER_EPOCH = 1079.5  # 54,000 sequences, or some fewer, 50 a batch
CLOSE = 0.03
NETWORKS = ("Shallow", "Deep", "ConvDeep", "Deep-SD", "R-LSTM", "R-LSTM-SD")
COSINE = "val/cosine/"


def runs_under(folder: Path) -> list[Run]:
    """The runs whose folders are there, in the order of the study."""
    runs = []
    for path in sorted(folder.iterdir()):
        if named := FOLDER.fullmatch(path.name):
            runs.append(Run(named["network"], named["dataset"], int(named["fold"]), int(named["folds"]), (), path))
    return runs


def scores(runs: list[Run]) -> pd.DataFrame:
    """The test scores after the last epoch, and those of the best validation, of finished runs."""
    parts = []
    for scored, file in (("last", "results.json"), ("best", "results-best.json")):
        table = collect(runs, file)
        parts.append(table.assign(scored=scored))
    return pd.concat(parts, ignore_index=True).drop(columns="run", errors="ignore")


def curves(runs: list[Run]) -> pd.DataFrame:
    """Validation accuracy and cosines over the epochs, of runs that are finished or not."""
    rows = []
    for run in runs:
        events = EventAccumulator(str(run.folder), size_guidance={"scalars": 0}).Reload()
        tags = events.Tags()["scalars"]
        accuracy = (
            {event.step: event.value for event in events.Scalars("val/accuracy")} if "val/accuracy" in tags else {}
        )
        for tag in (tag for tag in tags if tag.startswith(COSINE)):
            for event in events.Scalars(tag):
                rows.append(
                    {
                        "network": run.network,
                        "dataset": run.dataset,
                        "repetition": run.repetition,
                        "epoch": round((event.step + 1) / STEPS_PER_EPOCH),
                        "method": tag.removeprefix(COSINE),
                        "cosine": round(event.value, 4),
                        "accuracy": round(accuracy[event.step], 4),
                    }
                )
    return pd.DataFrame(rows)


def take_in(new: pd.DataFrame, file: Path, keys: list[str]) -> None:
    """Add rows to a file; those that are there already are replaced."""
    if new.empty:
        return
    old = [pd.read_csv(file)] if file.exists() else []
    rows = pd.concat([*old, new], ignore_index=True).drop_duplicates(keys, keep="last")
    rows.sort_values(keys, kind="stable").to_csv(file, index=False, float_format="%.6g")


def draw(table: pd.DataFrame) -> Figure:
    """Cosine similarity by each method, and accuracy, over the epochs; a panel a network and data set."""
    panels = [key for key, _ in table.groupby(["dataset", "network"], sort=False)]
    figure = Figure(figsize=(max(4.2 * len(panels), 7.0), 3.8), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (dataset, network) in zip(axes, panels, strict=True):
        here = table[(table["dataset"] == dataset) & (table["network"] == network)]
        for number, method in enumerate(METHODS):
            line = here[here["method"] == method].groupby("epoch")["cosine"].mean()
            axis.plot(line.index, line, color=COLOURS[number], label=method)
        line = here.groupby("epoch")["accuracy"].mean()
        axis.plot(line.index, line, color="#000000", linestyle="--", label="accuracy")
        axis.set_title(f"{network}, {dataset}", fontsize=9)
        axis.set_xlabel("epoch")
        axis.grid(linewidth=0.3)
    axes[0].set_ylabel("cosine similarity; accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Data sets, networks and methods in the order of the study."""
    orders = {"dataset": ("mnist", "fashion_mnist"), "network": NETWORKS, "method": METHODS}
    keys = [*orders, *(name for name in ("repetition", "epoch") if name in table)]

    def place(column: pd.Series) -> pd.Series:
        order = orders.get(str(column.name))
        return column if order is None else column.map(order.index)

    return table.sort_values(keys, key=place, kind="stable")


def markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """A table as docs/ has them; what is missing is left blank."""

    def text(value: object) -> str:
        if isinstance(value, float):
            return "" if pd.isna(value) else f"{value:.{digits}f}"
        return str(value)

    shown = table.map(text)
    return str(shown.to_markdown(index=False, disable_numparse=True)) if len(shown) else "None."


def page() -> str:
    """The page, of the numbers as they are."""
    everything = in_order(pd.read_csv(HERE / "results.csv"))
    everything["run"] = everything[["network", "dataset", "repetition"]].astype(str).agg(" ".join, axis=1)
    last, best = (everything[everything["scored"] == scored] for scored in ("last", "best"))
    cosines = summarise_cosines(last)
    beside = summarise_cosines(best).rename(columns={"mean": "best checkpoint"})
    keys = ["dataset", "network", "method"]
    table = cosines.merge(beside[[*keys, "best checkpoint"]], on=keys, how="left")
    apart = cosines[cosines["difference"].abs() > CLOSE]
    over_time = in_order(pd.read_csv(HERE / "curves.csv"))
    shown = over_time[over_time["epoch"].isin([5, 10, 20, 40, 60, 80, 100])]
    index = ["dataset", "network", "epoch"]
    curve = shown.pivot_table(index=index, columns="method", values="cosine", sort=False)
    curve.insert(0, "accuracy", shown.groupby(index)["accuracy"].mean())
    readings = pd.read_csv(HERE / "readings.csv").pivot_table(
        index=["dataset", "network"], columns="reading", values="cosine", sort=False
    )
    readings = readings.reset_index()
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=False, keep_trailing_newline=True, trim_blocks=True
    )
    return environment.get_template("results.md.j2").render(
        accuracies=markdown(summarise_accuracies(last).drop(columns=["epochs", "seconds"]), 4),
        cosines=markdown(table),
        measured=len(cosines),
        close=len(cosines) - len(apart),
        apart=markdown(apart[[*keys, "mean", "published", "difference"]]),
        readings=markdown(readings),
        findings=markdown(check_findings(last)),
        significance=markdown(tests, 4) if len(tests := significance(last)) else "",
        curve=markdown(curve[["accuracy", *METHODS]].reset_index()),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write docs/results.md.")
    parser.add_argument("--logs", type=Path, help="folder where `rnnx compare` ran")
    chosen = parser.parse_args()
    if chosen.logs:
        found = runs_under(chosen.logs / "logs" / "compare" / "runs")
        identity = ["dataset", "network", "repetition", "method"]
        take_in(scores(found), HERE / "results.csv", [*identity, "scored"])
        take_in(curves(found), HERE / "curves.csv", [*identity, "epoch"])
    (HERE.parent / "results.md").write_text(page())
    draw(in_order(pd.read_csv(HERE / "curves.csv"))).savefig(HERE.parent / "pictures" / "curve.png")
