"""The tables of docs/results_evidence.md, from the rows of evidence.csv.

python docs/study/tables.py [docs/study/evidence.csv]
"""

import sys

import pandas as pd

from rnnx_lightning.compare.tables import significance, summarise_accuracies, summarise_cosines

METHODS = {"SA": "Sensitivity", "GB": "GuidedBackprop", "DTD": "DeepTaylor", "LRP": "LRP"}
FINAL = {("Evidence", 0.002): "Evidence", ("ConvEvidence", 0.002): "ConvEvidence", ("RLSTM", 0.004): "R-LSTM"}
TASK = {"samples": 3, "majority_size": 2, "columns": 7, "margin": 0, "task": "majority"}
PLAIN = TASK | {"decay": 0, "noise": 0, "cost": 0, "loss": "ce", "batch": 100, "rate": 0.002, "dataset": "mnist"}
PLAIN["seed"] = 0


def final(rows: pd.DataFrame) -> None:
    """The networks that were tested: means and intervals over seeds, and Tukey's test."""
    results = []
    for row in rows.to_dict("records"):
        name = FINAL.get((row["network"], row["rate"]))
        for short, method in METHODS.items():
            one = {"network": name, "dataset": row["dataset"], "repetition": row["seed"], "method": method}
            one |= {"cosine": row[short], "accuracy": row["accuracy"], "epochs": row["epochs"]}
            one |= {"seconds": row["epochs"] * row["epoch_seconds"]}
            one |= {"run": f"{name} {row['dataset']} {row['seed']}"}
            results.append(one)
    table = pd.DataFrame(results).dropna(subset="network")
    accuracies = summarise_accuracies(table).drop(columns="seconds")
    cosines = summarise_cosines(table).drop(columns=["published", "difference"])
    repeated = table.groupby(["dataset", "network"])["run"].transform("nunique") > 1
    for part in (accuracies, cosines, significance(table[repeated])):
        print(part.to_markdown(index=False, floatfmt=".4f"), end="\n\n")


def each(rows: pd.DataFrame) -> None:
    """One line a run."""
    print("| network | epochs | accuracy | SA | GB | DTD | LRP |\n|---|---|---|---|---|---|---|")
    for row in rows.to_dict("records"):
        options = [row["options"]] if isinstance(row["options"], str) else []
        other = [f"{key}={row[key]}" for key, value in PLAIN.items() if row[key] != value]
        scores = " | ".join(f"{row[key]:.3f}" for key in METHODS)
        name = " ".join([row["network"], *options, *other])
        print(f"| {name} | {row['epochs']} | {100 * row['accuracy']:.2f} | {scores} |")
    print()


if __name__ == "__main__":
    rows = pd.read_csv(sys.argv[1] if len(sys.argv) > 1 else "docs/study/evidence.csv")
    tested = rows["split"] == "test"
    usual = (rows[list(TASK)] == pd.Series(TASK)).all(axis=1)
    each(rows[~tested])
    each(rows[tested & ~usual])
    final(rows[tested & usual])
