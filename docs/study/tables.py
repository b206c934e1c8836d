"""The tables of docs/results_evidence.md, from the rows of evidence.csv.

python docs/study/tables.py [docs/study/evidence.csv]
"""

import sys

import pandas as pd

from rnnx_lightning.compare.tables import significance, summarise_accuracies, summarise_cosines

METHODS = {"SA": "Sensitivity", "GB": "GuidedBackprop", "DTD": "DeepTaylor", "LRP": "LRP"}
PLAIN = {"decay": 0, "noise": 0, "cost": 0, "loss": "ce", "batch": 100, "split": "validation", "count": 2000}
PLAIN |= {"samples": 3, "majority_size": 2, "columns": 7, "margin": 0, "seed": 0, "dataset": "mnist"}


def final(rows: pd.DataFrame) -> None:
    """The networks that were tested: means and intervals over seeds, and Tukey's test."""
    results = []
    for row in rows[rows["split"] == "test"].to_dict("records"):
        name = f"{row['network']} {row['options']}".strip()
        for short, method in METHODS.items():
            run = f"{name} {row['dataset']} {row['seed']} {row['samples']} {row['columns']} {row['margin']}"
            results.append(
                {
                    "network": name,
                    "dataset": row["dataset"],
                    "repetition": row["seed"],
                    "method": method,
                    "cosine": row[short],
                    "accuracy": row["accuracy"],
                    "epochs": row["epochs"],
                    "seconds": row["epochs"] * row["epoch_seconds"],
                    "run": run,
                }
            )
    table = pd.DataFrame(results)
    cosines = summarise_cosines(table).drop(columns=["published", "difference"])
    for part in (summarise_accuracies(table).drop(columns="seconds"), cosines, significance(table)):
        print(part.to_markdown(index=False, floatfmt=".4f"), end="\n\n")


def ablation(rows: pd.DataFrame) -> None:
    """One line a variant."""
    print("| variant | epochs | accuracy | SA | GB | DTD | LRP |\n|---|---|---|---|---|---|---|")
    for row in rows[rows["split"] == "validation"].to_dict("records"):
        other = {key: row[key] for key, value in PLAIN.items() if row[key] != value}
        options = [row["options"]] if isinstance(row["options"], str) else []
        name = " ".join([row["network"], *options, *(f"{key}={value}" for key, value in other.items())])
        scores = " | ".join(f"{row[key]:.3f}" for key in METHODS)
        print(f"| {name} | {row['epochs']} | {100 * row['accuracy']:.2f} | {scores} |")


if __name__ == "__main__":
    rows = pd.read_csv(sys.argv[1] if len(sys.argv) > 1 else "docs/study/evidence.csv")
    ablation(rows)
    print()
    final(rows[(rows["samples"] == 3) & (rows["columns"] == 7) & (rows["margin"] == 0)])
