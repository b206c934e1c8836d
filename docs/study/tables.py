"""Writes docs/results_evidence.md and its plot: numbers from the tables beside it, text from the template there.

python docs/study/tables.py
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rnnx_lightning.compare.plots import plot_cosines
from rnnx_lightning.compare.tables import (
    by_network,
    repeated,
    significance,
    summarise_accuracies,
    summarise_cosines,
)

HERE = Path(__file__).parent
EXPERIMENT3 = HERE / "experiment3.csv"
METHODS = {"SA": "Sensitivity", "GB": "GuidedBackprop", "DTD": "DeepTaylor", "LRP": "LRP"}
WIDE = "features=256 hidden=256 dropout=0.3"
FINAL = {  # by network, options, rate, epochs and cost
    ("Deep", "dropout=0.1", 0.002, 10, 0.0): "Deep",
    ("RLSTM", "dropout=0.1", 0.004, 10, 0.0): "R-LSTM",
    ("RLSTM", "dropout=0.1 stationary_dropout=True", 0.004, 10, 0.0): "R-LSTM-SD",
    ("ConvRLSTM", "dropout=0.1", 0.004, 6, 0.0): "ConvR-LSTM",
    ("Evidence", "", 0.002, 10, 0.0): "Evidence",
    ("ConvEvidence", "", 0.002, 6, 0.0): "ConvEvidence",
    ("ConvEvidence", "", 0.002, 16, 0.0): "ConvEvidence, 16 epochs",
    ("ConvEvidence", WIDE, 0.002, 24, 0.0): "ConvEvidence, wide, 24 epochs",
    ("ConvEvidence", "", 0.002, 16, 0.0003): "ConvEvidence, cost 0.0003, 16 epochs",
    ("ConvEvidence", "", 0.002, 16, 0.0005): "ConvEvidence, cost 0.0005, 16 epochs",
    ("ConvEvidence", WIDE, 0.002, 16, 0.0005): "ConvEvidence, wide, cost 0.0005, 16 epochs",
    ("ConvEvidence", f"{WIDE} power=3", 0.002, 16, 0.0005): "ConvEvidence, wide, cubed, cost 0.0005, 16 epochs",
}
GOALS = {
    "mnist": dict(zip(("accuracy", *METHODS.values()), (0.993, 0.95, 0.985, 0.992, 0.992), strict=True)),
    "fashion_mnist": dict(zip(("accuracy", *METHODS.values()), (0.935, 0.95, 0.95, 0.95, 0.95), strict=True)),
}
TASK = {"samples": 3, "majority_size": 2, "columns": 7, "margin": 0, "task": "majority"}
PLAIN = TASK | {"decay": 0, "noise": 0, "cost": 0, "loss": "ce", "batch": 100, "rate": 0.002, "dataset": "mnist"}


def final(rows: pd.DataFrame) -> dict[str, str]:
    """The networks that were tested: means and intervals over seeds, and Tukey's test against R-LSTM."""
    results = []
    for row in rows.to_dict("records"):
        name = FINAL.get(_key(row))
        for short, method in METHODS.items():
            one = {"network": name, "dataset": row["dataset"], "repetition": row["seed"], "method": method}
            one |= {"cosine": row[short], "accuracy": row["accuracy"], "epochs": row["epochs"]}
            one |= {"seconds": row["epochs"] * row["epoch_seconds"]}
            one |= {"run": f"{name} {row['dataset']} {row['seed']}"}
            results.append(one)
    table = pd.DataFrame(results).dropna(subset="network")
    order = pd.CategoricalDtype(list(FINAL.values()), ordered=True)
    table = table.astype({"network": order}).sort_values(["network", "repetition"]).astype({"network": str})
    means = table.groupby(["dataset", "network", "method"])["cosine"].mean()
    return {
        "scores": _scores(table),
        "best": f"{means['fashion_mnist'].max():.4f}",
        "significance": _against_rlstm(significance(repeated(table))),
    }


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["network"], " ".join(_options(row)), row["rate"], row["epochs"], row["cost"]


def _options(row: Mapping[str, Any]) -> list[str]:
    return [row["options"]] if isinstance(row["options"], str) else []


def _scores(table: pd.DataFrame) -> str:
    """One line per data set and network, with the goals above it; what misses its goal is in italics."""
    accuracies = summarise_accuracies(table).assign(method="accuracy")
    summary = pd.concat([accuracies, summarise_cosines(table)])
    lines = [
        f"| data set | network | epochs | runs | {' | '.join(GOALS['mnist'])} |",
        "|---|---|---|---|" + "---|" * 5,
    ]
    for dataset, goals in GOALS.items():
        lines.append(f"| {dataset} | goal | | | {' | '.join(map(str, goals.values()))} |")
        here = summary[summary["dataset"] == dataset]
        for network, group in here.groupby("network", sort=False):
            rows = group.set_index("method")
            cells = []
            for score, goal in goals.items():
                mean, interval = rows.loc[score, ["mean", "interval"]]
                shown = f"{mean:.4f}" if mean >= goal else f"*{mean:.4f}*"
                cells.append(shown if pd.isna(interval) else f"{shown} ±&nbsp;{interval:.4f}")
            first = rows.loc["accuracy"]
            lines.append(
                f"| {dataset} | {network} | {first['epochs']:.0f} | {first['runs']} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def _against_rlstm(tests: pd.DataFrame) -> str:
    """How far each network is above R-LSTM, with Tukey's p, one line per data set and network."""
    tests = tests[tests["pair"].str.startswith("R-LSTM - ")]
    lines = [f"| data set | network | {' | '.join(METHODS.values())} |", "|---|---|" + "---|" * len(METHODS)]
    for (dataset, pair), group in tests.groupby(["dataset", "pair"], sort=False):
        by_method = group.set_index("method")
        cells = []
        for method in METHODS.values():
            gain, p = -by_method.loc[method, "difference"], by_method.loc[method, "tukey p"]
            cells.append(f"{gain:+.4f} ({'p&nbsp;<&nbsp;0.0001' if p < 1e-4 else f'p&nbsp;=&nbsp;{p:.4f}'})")
        lines.append(f"| {dataset} | {pair.removeprefix('R-LSTM - ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def each(rows: pd.DataFrame) -> str:
    """One line per variant: means over seeds."""
    columns = ("network", "epochs", "runs", "accuracy", *METHODS.values())
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for (name, epochs), group in rows.groupby([rows.apply(_name, axis=1), "epochs"], sort=False):
        scores = " | ".join(f"{group[key].mean():.3f}" for key in METHODS)
        lines.append(f"| {name} | {epochs} | {len(group)} | {group['accuracy'].mean():.4f} | {scores} |")
    return "\n".join(lines)


def _name(row: pd.Series) -> str:
    return " ".join(
        [row["network"], *_options(row), *(f"{k}={row[k]}" for k, plain in PLAIN.items() if row[k] != plain)]
    )


def every_score(measured: pd.DataFrame) -> str:
    """One line per data set, score and network."""
    lines = [
        f"| data set | score | network | {' | '.join(METHODS.values())} |",
        "|---|---|---|" + "---|" * len(METHODS),
    ]
    for (dataset, score, network), group in measured.groupby(["dataset", "score", "network"], sort=False):
        values = group.set_index("method")["value"]
        cells = " | ".join(f"{values[m]:.3f}" if m in values else "" for m in METHODS.values())
        lines.append(f"| {dataset} | {score} | {network} | {cells} |")
    return "\n".join(lines)


def page(rows: pd.DataFrame) -> str:
    """The page, in Markdown."""
    tested = rows["split"] == "test"
    usual = (rows[list(TASK)] == pd.Series(TASK)).all(axis=1) & rows["dataset"].isin(list(GOALS))
    mnist = rows["dataset"] == "mnist"
    chosen = rows.apply(lambda row: _key(row) in FINAL, axis=1)
    names = rows.apply(_name, axis=1)
    several = names.groupby([names, rows["epochs"], tested]).transform("size") > 1
    shown = several | names.isin(["Variant", "Variant gate=none"])
    tables = {name: by_network(pd.read_csv(HERE / f"{name}.csv")) for name in ("experiment3", "relevance_loss")}
    parts: dict[str, Any] = {
        "final": final(rows[tested & usual]),
        "ablation": each(rows[~tested & mnist & shown]),
        "single": each(rows[~tested & mnist & ~shown]),
        "costs": each(rows[~tested & ~mnist]),
        "elsewhere": each(rows[tested & ~usual]),
        "others": each(rows[tested & usual & ~chosen]),
        "scores": every_score(pd.read_csv(HERE / "scores.csv")),
        "experiment3_tests": _against_rlstm(significance(pd.read_csv(EXPERIMENT3))),
    }
    parts |= {name: table.to_markdown(index=False, floatfmt=".3f") for name, table in tables.items()}
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.get_template("results_evidence.md.j2").render(parts)


if __name__ == "__main__":
    (HERE.parent / "results_evidence.md").write_text(page(pd.read_csv(HERE / "evidence.csv")))
    figure = plot_cosines(summarise_cosines(pd.read_csv(EXPERIMENT3)), "experiment3")
    figure.savefig(HERE.parent / "pictures" / "experiment3.png")
