import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rnnx_lightning.compare import plots, published, tables
from rnnx_lightning.compare.study import Run


@pytest.fixture
def results(tmp_path):
    random = np.random.default_rng(0)
    runs = []
    for network, level in (("R-LSTM", 0.9), ("Deep", 0.7)):
        for seed in range(4):
            run = Run(network, "mnist", seed, None, (), tmp_path / f"{network}{seed}")
            run.folder.mkdir()
            scores = {f"test/cosine/{m}": level + random.normal() * 0.02 for m in ("LRP", "DeepTaylor")}
            content = {
                "results": {"test/accuracy": 0.98, "test/loss": 0.1, **scores},
                "epochs": 3, "seconds": 5.0, "devices": "1 x cpu", "versions": {},
            }  # fmt: skip
            run.results.write_text(json.dumps(content))
            runs.append(run)
    unfinished = Run("Deep", "mnist", 9, None, (), tmp_path / "unfinished")
    return tables.collect([*runs, unfinished])


def test_one_row_a_run_and_method(results):
    assert len(results) == 16
    assert set(results["network"]) == {"R-LSTM", "Deep"}


def test_means_and_intervals_are_scipys(results):
    summary = tables.summarise_cosines(results).set_index(["network", "method"])
    values = results[(results.network == "Deep") & (results.method == "LRP")]["cosine"]
    row = summary.loc["Deep", "LRP"]
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert row["mean"] == pytest.approx(values.mean())
    assert row["mean"] - row["interval"] == pytest.approx(interval.low)
    assert row["published"] == 0.728
    assert row["difference"] == pytest.approx(values.mean() - 0.728)
    assert tables.summarise_accuracies(results)["runs"].tolist() == [4, 4]


def test_a_single_run_has_no_interval_and_no_significance(results):
    one = results[results.repetition == 0]
    assert tables.summarise_cosines(one)["interval"].isna().all()
    assert tables.significance(one).empty


def test_a_row_a_network(results):
    table = tables.by_network(results)
    for row in table.to_dict("records"):
        own = results[(results["network"] == row["network"]) & (results["dataset"] == row["dataset"])]
        assert row["runs"] == own["run"].nunique()
        assert row["accuracy"] == pytest.approx(own["accuracy"].mean())
        for method, group in own.groupby("method"):
            assert row[method] == pytest.approx(group["cosine"].mean())


def test_significance_is_scipys(results):
    table = tables.significance(results).set_index("method")
    groups = [g["cosine"].to_numpy() for _, g in results[results.method == "LRP"].groupby("network", sort=False)]
    assert table.loc["LRP", "anova p"] == pytest.approx(stats.f_oneway(*groups).pvalue)
    assert table.loc["LRP", "tukey p"] == pytest.approx(stats.tukey_hsd(*groups).pvalue[0, 1])
    assert table.loc["LRP", "difference"] == pytest.approx(groups[0].mean() - groups[1].mean())


def test_findings_are_checked_where_their_networks_are():
    rows = [
        {"network": n, "dataset": "mnist", "method": m, "cosine": c}
        for n, c in (("R-LSTM", 0.9), ("R-LSTM-SD", 0.95), ("Deep", 0.7))
        for m in published.METHODS
    ]
    rows[4]["cosine"] = 0.1  # R-LSTM-SD by sensitivity, which no finding is about
    rows[5]["cosine"] = 0.1  # R-LSTM-SD by guided backprop
    table = tables.check_findings(pd.DataFrame(rows))
    assert table["holds"].tolist() == ["yes", "by 1 of 2 methods"]


def test_published_values():
    assert published.published_cosine("mnist", "ConvDeep", "DeepTaylor") == 0.769
    assert published.published_cosine("fashion_mnist", "R-LSTM-SD", "LRP") == 0.952
    assert published.published_cosine("digits", "Deep", "LRP") is None
    assert published.published_cosine("mnist", "Deep", "Gamma") is None


def test_a_plot_has_a_panel_a_data_set(results):
    figure = plots.plot_cosines(tables.summarise_cosines(results), "study")
    assert [axis.get_title() for axis in figure.axes] == ["mnist"]
