"""Plots like those of the thesis."""

import pandas as pd
from matplotlib.figure import Figure

# The colour-blind-safe palette of Okabe and Ito.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
EVEN = 0.816  # similarity of relevance spread evenly over three samples, two of them of the majority class


def plot_cosines(summary: pd.DataFrame, title: str) -> Figure:
    """Plot cosine similarity by method: one line per network, one panel per data set; published means are hollow.

    Args:
        summary: the result of `tables.summarise_cosines`.
        title: title of the figure.

    Returns:
        A matplotlib figure, not registered with pyplot.
    """
    datasets, networks = list(summary["dataset"].unique()), list(summary["network"].unique())
    methods = list(summary["method"].unique())
    figure = Figure(figsize=(5.2 * len(datasets) + 1.6, 4.4), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(datasets), sharey=True, squeeze=False)[0]
    for panel, dataset in zip(panels, datasets, strict=True):
        panel.axhline(EVEN, color="#999999", linewidth=0.8, linestyle=":")
        for number, network in enumerate(networks):
            rows = summary[(summary["dataset"] == dataset) & (summary["network"] == network)]
            rows = rows.set_index("method").reindex(methods)
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            shift = (number - (len(networks) - 1) / 2) * 0.06
            positions = [place + shift for place in range(len(methods))]
            panel.errorbar(
                positions, rows["mean"], yerr=rows["interval"].fillna(0), capsize=3, label=network, **style
            )
            panel.plot(
                positions, rows["published"], linestyle="none", markerfacecolor="none", markersize=9, **style
            )
        panel.set_title(dataset)
        panel.set_xticks(range(len(methods)), methods)
        panel.grid(axis="y", linewidth=0.3)
    panels[0].set_ylabel("cosine similarity with the majority mask")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    note = "filled: measured, with 95 % interval; hollow: published; dotted: relevance spread evenly"
    figure.suptitle(f"{title}\n{note}", fontsize=9)
    return figure
