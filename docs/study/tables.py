"""docs/results_evidence.md, made of evidence.csv; what is said about its rows is in results_evidence.md.j2.

python docs/study/tables.py
"""

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rnnx_lightning.compare.tables import significance, summarise_accuracies, summarise_cosines

HERE = Path(__file__).parent
METHODS = {"SA": "Sensitivity", "GB": "GuidedBackprop", "DTD": "DeepTaylor", "LRP": "LRP"}
FINAL = {  # by network, rate and epochs
    ("RLSTM", 0.004, 10): "R-LSTM",
    ("Evidence", 0.002, 10): "Evidence",
    ("ConvEvidence", 0.002, 6): "ConvEvidence",
    ("ConvEvidence", 0.002, 16): "ConvEvidence, 16 epochs",
}
TASK = {"samples": 3, "majority_size": 2, "columns": 7, "margin": 0, "task": "majority"}
PLAIN = TASK | {"decay": 0, "noise": 0, "cost": 0, "loss": "ce", "batch": 100, "rate": 0.002, "dataset": "mnist"}


def final(rows: pd.DataFrame) -> dict[str, str]:
    """The networks that were tested: means and intervals over seeds, and Tukey's test."""
    results = []
    for row in rows.to_dict("records"):
        name = FINAL.get((row["network"], row["rate"], row["epochs"]))
        for short, method in METHODS.items():
            one = {"network": name, "dataset": row["dataset"], "repetition": row["seed"], "method": method}
            one |= {"cosine": row[short], "accuracy": row["accuracy"], "epochs": row["epochs"]}
            one |= {"seconds": row["epochs"] * row["epoch_seconds"]}
            one |= {"run": f"{name} {row['dataset']} {row['seed']}"}
            results.append(one)
    table = pd.DataFrame(results).dropna(subset="network")
    table["network"] = pd.Categorical(table["network"], list(FINAL.values()), ordered=True).astype(str)
    accuracies = summarise_accuracies(table).drop(columns="seconds")
    cosines = summarise_cosines(table).drop(columns=["published", "difference"])
    repeated = table.groupby(["dataset", "network"])["run"].transform("nunique") > 1
    return {
        "accuracies": _shown(accuracies),
        "cosines": _shown(cosines),
        "significance": _shown(significance(table[repeated])),
    }


def each(rows: pd.DataFrame) -> str:
    """One line a variant: its mean over seeds."""
    lines = ["| network | epochs | runs | accuracy | SA | GB | DTD | LRP |", "|---|---|---|---|---|---|---|---|"]
    for (name, epochs), group in rows.groupby([rows.apply(_name, axis=1), "epochs"], sort=False):
        scores = " | ".join(f"{group[key].mean():.3f}" for key in METHODS)
        lines.append(f"| {name} | {epochs} | {len(group)} | {100 * group['accuracy'].mean():.2f} | {scores} |")
    return "\n".join(lines)


def _name(row: pd.Series) -> str:
    options = [row["options"]] if isinstance(row["options"], str) else []
    return " ".join(
        [row["network"], *options, *(f"{k}={row[k]}" for k, plain in PLAIN.items() if row[k] != plain)]
    )


def _shown(table: pd.DataFrame) -> str:
    return str(table.to_markdown(index=False, floatfmt=".4f")).replace("nan", "  -")


def page(rows: pd.DataFrame) -> str:
    """The page, in Markdown."""
    tested = rows["split"] == "test"
    usual = (rows[list(TASK)] == pd.Series(TASK)).all(axis=1)
    chosen = rows.apply(lambda row: (row["network"], row["rate"], row["epochs"]) in FINAL, axis=1)
    parts: dict[str, Any] = {
        "final": final(rows[tested & usual]),
        "ablation": each(rows[~tested]),
        "elsewhere": each(rows[tested & ~usual]),
        "others": each(rows[tested & usual & ~chosen]),
        "commits": ", ".join(f"`{commit}`" for commit in rows["commit"].unique()),
    }
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.get_template("results_evidence.md.j2").render(parts)


if __name__ == "__main__":
    (HERE.parent / "results_evidence.md").write_text(page(pd.read_csv(HERE / "evidence.csv")))
