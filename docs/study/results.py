"""Writes docs/results.md (tables) and docs/findings.md (text) from the study's numbers.

    python docs/study/results.py                  # also draws docs/pictures/curve.png
    python docs/study/results.py --logs FOLDER    # first adds the runs under FOLDER/logs/compare/runs

The numbers are in results.csv (one row per finished run and method), curves.csv (one row per run, epoch and
method) and readings.csv; the text is in results.md.j2 and findings.md.j2.
"""

import argparse
import itertools
import re
from itertools import permutations
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnnx_lightning.compare.plots import COLOURS
from rnnx_lightning.compare.published import FINDINGS, METHODS
from rnnx_lightning.compare.study import Run
from rnnx_lightning.compare.tables import (
    by_network,
    check_findings,
    collect,
    repeated,
    significance,
    summarise_accuracies,
    summarise_cosines,
)

HERE = Path(__file__).parent
FOLDER = re.compile(r"(?P<network>.+)-(?P<dataset>mnist|fashion_mnist)-fold-of-(?P<folds>\d+)-(?P<fold>\d+)-\w{8}")
STEPS_PER_EPOCH = 1079.5  # 54,000 sequences, or some fewer, 50 a batch
EPOCHS = 100
CLOSE, CLOSEST = 0.03, 0.01
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
    """Test scores of finished runs: after the last epoch, and of the best checkpoint by validation."""
    parts = []
    for scored, file in (("last", "results.json"), ("best", "results-best.json")):
        table = collect(runs, file)
        parts.append(table.assign(scored=scored))
    return pd.concat(parts, ignore_index=True).drop(columns="run", errors="ignore")


def curves(runs: list[Run]) -> pd.DataFrame:
    """Validation accuracy and cosine similarities over the epochs, also of unfinished runs."""
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
    """Add rows to a file, replacing those with the same keys."""
    if new.empty:
        return
    old = [pd.read_csv(file)] if file.exists() else []
    rows = pd.concat([*old, new], ignore_index=True).drop_duplicates(keys, keep="last")
    rows.sort_values(keys, kind="stable").to_csv(file, index=False, float_format="%.6g")


def draw(table: pd.DataFrame) -> Figure:
    """Cosine similarity by each method, and accuracy, over the epochs; one panel per network and data set."""
    datasets, networks = (list(table[key].unique()) for key in ("dataset", "network"))
    networks.sort(key=NETWORKS.index)
    figure = Figure(figsize=(2.1 * len(networks), 2.4 * len(datasets)), dpi=160, layout="constrained")
    axes = figure.subplots(len(datasets), len(networks), sharex=True, sharey=True, squeeze=False)
    for (row, dataset), (column, network) in itertools.product(enumerate(datasets), enumerate(networks)):
        axis = axes[row, column]
        here = table[(table["dataset"] == dataset) & (table["network"] == network)]
        for number, method in enumerate(METHODS):
            line = here[here["method"] == method].groupby("epoch")["cosine"].mean()
            axis.plot(line.index, line, color=COLOURS[number], label=method)
        line = here.groupby("epoch")["accuracy"].mean()
        axis.plot(line.index, line, color="#000000", linestyle="--", label="accuracy")
        axis.set_title(f"{network}\n{dataset}", fontsize=9)
        axis.grid(linewidth=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    for axis in axes[:, 0]:
        axis.set_ylabel("cosine similarity; accuracy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """The curves of runs that reached the last epoch."""
    reached = table.groupby(["network", "dataset", "repetition"])["epoch"].transform("max")
    return table[reached == EPOCHS]


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Data sets, networks and methods in the order of the study."""
    orders = {"dataset": ("mnist", "fashion_mnist"), "network": NETWORKS, "method": METHODS}
    keys = [*orders, *(name for name in ("repetition", "epoch") if name in table)]

    def place(column: pd.Series) -> pd.Series:
        order = orders.get(str(column.name))
        return column if order is None else column.map(order.index)

    return table.sort_values(keys, key=place, kind="stable")


def markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """A table in Markdown; missing values are left blank, and columns without any value are left out."""

    def text(value: object) -> str:
        if isinstance(value, float):
            return "" if pd.isna(value) else f"{value:.{digits}f}"
        return str(value)

    shown = table.dropna(axis="columns", how="all").map(text)
    return str(shown.to_markdown(index=False, disable_numparse=True)) if len(shown) else "None."


def pages() -> dict[str, str]:
    """Both pages, by file name."""
    everything = in_order(pd.read_csv(HERE / "results.csv"))
    everything["run"] = everything[["network", "dataset", "repetition"]].astype(str).agg(" ".join, axis=1)
    last, best = (everything[everything["scored"] == scored] for scored in ("last", "best"))
    tests = significance(repeated(last))
    keys = ["dataset", "network", "method"]
    beside = summarise_cosines(best).rename(columns={"mean": "best checkpoint"})
    cosines = summarise_cosines(last).merge(beside[[*keys, "best checkpoint"]], on=keys, how="left")
    over_time = in_order(finished(pd.read_csv(HERE / "curves.csv")))
    index = ["dataset", "network", "epoch"]
    curve = over_time.pivot_table(index=index, columns="method", values="cosine", sort=False)[list(METHODS)]
    curve.insert(0, "accuracy", over_time.groupby(index)["accuracy"].mean())
    readings = pd.read_csv(HERE / "readings.csv").pivot_table(
        index=["dataset", "network"], columns="reading", values="cosine", sort=False
    )
    shown = curve.loc[curve.index.get_level_values("epoch").isin([5, 10, 20, 40, 60, 80, 100])]
    parts = {
        "accuracies": markdown(summarise_accuracies(last).drop(columns=["epochs", "seconds"]), 4),
        "cosines": markdown(cosines),
        "readings": markdown(readings.reset_index()),
        "dropout": markdown(pd.read_csv(HERE / "dropout_places.csv")),
        "significance": tukey(tests),
        "stationary": gains_of_stationary(tests),
        "curve": markdown(shown.reset_index()),
        "findings": markdown(check_findings(last)),
        "open": ", ".join(
            f"{finding.claim} ({finding.better} over {finding.worse})"
            for finding in FINDINGS
            if not {finding.better, finding.worse} <= set(last["network"])
        ),
        "change": markdown(change(over_time)),
        "short": markdown(by_network(pd.read_csv(HERE / "short.csv"))),
        "through_gates": through_gates(cosines, readings),
        **agreement(cosines),
    }
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    names = ("results.md", "findings.md")
    return {name: environment.get_template(f"{name}.j2").render(parts) for name in names}


def tukey(tests: pd.DataFrame) -> str:
    """Tukey's test for the pairs of the published findings, over the networks with several runs."""
    if tests.empty:
        return ""
    pairs = {" - ".join(pair) for f in FINDINGS for pair in permutations((f.better, f.worse))}
    return markdown(tests[tests["pair"].isin(pairs)], 4)


def gains_of_stationary(tests: pd.DataFrame) -> str:
    """What stationary dropout gains for R-LSTM by guided backprop and LRP, with Tukey's p."""
    if tests.empty:
        return ""
    tests = tests[(tests["pair"] == "R-LSTM - R-LSTM-SD") & tests["method"].isin(["GuidedBackprop", "LRP"])]
    return ", ".join(
        f"{row.method} {-row.difference:+.3f} on {row.dataset} (p = {row.p:.3f})"
        for row in tests.rename(columns={"tukey p": "p"}).itertuples()
    )


def change(over_time: pd.DataFrame) -> pd.DataFrame:
    """What accuracy and similarity gain from epoch 10 to epoch 100; one row per data set and network."""
    index = ["dataset", "network", "repetition", "epoch"]
    table = over_time.pivot_table(index=index, columns="method", values="cosine", sort=False)[list(METHODS)]
    table.insert(0, "accuracy", over_time.groupby(index)["accuracy"].mean())
    early, late = (table.xs(epoch, level="epoch") for epoch in (10, EPOCHS))
    gain = (late - early).groupby(["dataset", "network"], sort=False).mean()
    return gain.map("{:+.3f}".format).reset_index()


def through_gates(cosines: pd.DataFrame, readings: pd.DataFrame) -> dict[str, str]:
    """How much guided backprop loses if gradients go through gates, by network."""
    constant = cosines[cosines["method"] == "GuidedBackprop"].set_index(["dataset", "network"])["mean"]
    loss = (constant - readings["GuidedBackprop, through gates"]).dropna()
    return {str(network): spread(part) for network, part in loss.groupby("network")}


def spread(values: pd.Series) -> str:
    """The least and the greatest of some numbers."""
    least, greatest = f"{values.min():.3f}", f"{values.max():.3f}"
    return least if least == greatest else f"{least} to {greatest}"


def agreement(cosines: pd.DataFrame) -> dict[str, object]:
    """How close the means are to the published ones, in numbers and words for the text."""
    published = cosines.dropna(subset="published")
    distance = published["difference"].abs()

    def named(rows: pd.DataFrame) -> str:
        return ", ".join(
            f"{row.difference:+.3f} ({row.network}, {row.dataset}, {row.method})" for row in rows.itertuples()
        )

    falling = published["method"].isin(["GuidedBackprop", "LRP"]) & (published["network"] == "R-LSTM")
    fewest, most = published["runs"].min(), published["runs"].max()
    runs = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return {
        "runs": f"{runs} run" + ("s" if most > 1 else ""),
        "measured": len(published),
        "close": int((distance <= CLOSE).sum()),
        "closest": int((distance <= CLOSEST).sum()),
        "largest": named(published.loc[[distance.idxmax()]]),
        "apart": named(published[distance > CLOSE]),
        "low": named(published[falling]),
        "missing": ", ".join(name for name in NETWORKS if name not in set(published["network"])),
        "best_or_last": f"{(published['mean'] - published['best checkpoint']).abs().max():.3f}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write docs/results.md and docs/findings.md.")
    parser.add_argument("--logs", type=Path, help="folder where `rnnx compare` ran")
    chosen = parser.parse_args()
    if chosen.logs:
        found = runs_under(chosen.logs / "logs" / "compare" / "runs")
        identity = ["dataset", "network", "repetition", "method"]
        take_in(scores(found), HERE / "results.csv", [*identity, "scored"])
        take_in(curves(found), HERE / "curves.csv", [*identity, "epoch"])
    for name, text in pages().items():
        (HERE.parent / name).write_text(text)
    draw(in_order(finished(pd.read_csv(HERE / "curves.csv")))).savefig(HERE.parent / "pictures" / "curve.png")
