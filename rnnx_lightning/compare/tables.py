"""Tables of a study's results: means, intervals, significance, and the published values for comparison."""

import json
from collections.abc import Sequence
from itertools import combinations

import pandas as pd
from scipy import stats

from rnnx_lightning.compare.published import FINDINGS, published_cosine
from rnnx_lightning.compare.study import Run

COSINE = "test/cosine/"
CONFIDENCE = 0.95


def collect(runs: Sequence[Run], file: str = "results.json") -> pd.DataFrame:
    """Collect one row per finished run and method.

    Args:
        runs: the runs of a study; unfinished ones are left out.
        file: results file of a run; "results-best.json" if the best checkpoint was tested in addition to the last.

    Returns:
        Columns network, dataset, repetition, method, cosine, accuracy, loss, epochs, seconds, devices, run.
    """
    rows = []
    for run in runs:
        if not run.results.exists() or not (run.folder / file).exists():
            continue
        content = json.loads((run.folder / file).read_text())
        results = content["results"]
        for name, value in results.items():
            if name.startswith(COSINE):
                rows.append(
                    {
                        "network": run.network,
                        "dataset": run.dataset,
                        "repetition": run.repetition,
                        "method": name.removeprefix(COSINE),
                        "cosine": value,
                        "accuracy": results["test/accuracy"],
                        "loss": results["test/loss"],
                        "epochs": content["epochs"],
                        "seconds": content["seconds"],
                        "devices": content["devices"],
                        "run": run.folder.name,
                    }
                )
    return pd.DataFrame(rows)


def _mean_and_interval(values: pd.Series) -> pd.Series:
    """Mean, and half the width of the 95 % interval by Student's t; NaN for a single value."""
    count = len(values)
    half = float("nan")
    if count > 1:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * stats.sem(values))
    return pd.Series({"runs": count, "mean": values.mean(), "interval": half})


def summarise_cosines(results: pd.DataFrame) -> pd.DataFrame:
    """Mean cosine similarity by data set, network and method, with the published value and the difference."""
    keys = ["dataset", "network", "method"]
    summary = results.groupby(keys, sort=False)["cosine"].apply(_mean_and_interval).unstack().reset_index()
    summary["runs"] = summary["runs"].astype(int)
    published = [published_cosine(*row) for row in summary[keys].itertuples(index=False, name=None)]
    summary["published"] = pd.Series(published, dtype=float)
    summary["difference"] = summary["mean"] - summary["published"]
    return summary


def summarise_accuracies(results: pd.DataFrame) -> pd.DataFrame:
    """Mean test accuracy by data set and network."""
    one_a_run = results.drop_duplicates("run")
    keys = ["dataset", "network"]
    summary = one_a_run.groupby(keys, sort=False)["accuracy"].apply(_mean_and_interval).unstack().reset_index()
    summary["runs"] = summary["runs"].astype(int)
    extra = one_a_run.groupby(keys, sort=False)[["epochs", "seconds"]].mean().reset_index()
    return summary.merge(extra, on=keys)


def by_network(results: pd.DataFrame) -> pd.DataFrame:
    """Runs, mean accuracy, and mean similarity by each method in a column; one row per data set and network."""
    keys = ["dataset", "network"]
    table = results.pivot_table(index=keys, columns="method", values="cosine", sort=False)
    table = table[list(results["method"].unique())]
    grouped = results.groupby(keys)
    table.insert(0, "runs", grouped["repetition"].nunique())
    table.insert(1, "accuracy", grouped["accuracy"].mean())
    return table.rename_axis(columns=None).reset_index()


def significance(results: pd.DataFrame) -> pd.DataFrame:
    """ANOVA over the networks for each data set and method, and Tukey's HSD for each pair of networks.

    Returns:
        Columns dataset, method, anova p, pair, difference (of the means), tukey p. A data set is left out if some
        network has fewer than two runs, or if there is only one network.
    """
    rows = []
    for (dataset, method), group in results.groupby(["dataset", "method"], sort=False):
        samples = {network: part["cosine"].to_numpy() for network, part in group.groupby("network", sort=False)}
        if len(samples) < 2 or min(map(len, samples.values())) < 2:
            continue
        anova = stats.f_oneway(*samples.values()).pvalue
        tukey = stats.tukey_hsd(*samples.values())
        for (i, one), (j, two) in combinations(enumerate(samples), 2):
            rows.append(
                {
                    "dataset": dataset,
                    "method": method,
                    "anova p": anova,
                    "pair": f"{one!s} - {two!s}",
                    "difference": tukey.statistic[i, j],
                    "tukey p": tukey.pvalue[i, j],
                }
            )
    return pd.DataFrame(rows)


def repeated(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of networks that have several runs on a data set, as `significance` needs them."""
    return results[results.groupby(["dataset", "network"])["run"].transform("nunique") > 1]


def check_findings(results: pd.DataFrame) -> pd.DataFrame:
    """Check whether the published findings hold here, for those whose networks are in the study."""
    means = results.groupby(["dataset", "network", "method"])["cosine"].mean()
    rows = []
    for dataset in results["dataset"].unique():
        for finding in FINDINGS:
            keys = [
                (dataset, name, method) for method in finding.methods for name in (finding.better, finding.worse)
            ]
            if not all(key in means.index for key in keys):
                continue
            gains = {
                m: means[dataset, finding.better, m] - means[dataset, finding.worse, m] for m in finding.methods
            }
            rows.append(
                {
                    "dataset": dataset,
                    "finding": f"{finding.claim} ({finding.better} over {finding.worse})",
                    "gain": ", ".join(f"{method} {gain:+.3f}" for method, gain in gains.items()),
                    "holds": _verdict(sum(gain > 0 for gain in gains.values()), len(gains)),
                }
            )
    return pd.DataFrame(rows)


def _verdict(holding: int, total: int) -> str:
    if holding == total:
        return "yes"
    return "no" if holding == 0 else f"by {holding} of {total} methods"
