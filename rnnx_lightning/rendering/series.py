"""Relevance of multivariate series: lines over a background coloured by relevance."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from rnnx_lightning.rendering.heatmaps import NEGATIVE, POSITIVE

COLOURS = LinearSegmentedColormap.from_list("relevance", [NEGATIVE, (1, 1, 1), POSITIVE])
LINE = "#222222"


def draw_series(
    series: Tensor, relevance: Tensor, names: Sequence[str] | None = None, title: str = "", step: str = "time step"
) -> Figure:
    """Draw one row per variable: its line over the relevance of each time step.

    Red is relevance for the class, blue against it. All variables share one colour scale, symmetric around zero.

    Args:
        series: (T, V); where it is NaN, its line has a gap.
        relevance: (T, V).
        names: names of the variables.
        title: title of the figure.
        step: label of the horizontal axis.

    Returns:
        A matplotlib figure, not registered with pyplot.

    Raises:
        ValueError: shapes or names do not fit, or relevance is not finite.
    """
    if series.dim() != 2 or series.numel() == 0 or series.shape != relevance.shape:
        raise ValueError(
            "series and relevance must have the same shape (T, V), T and V at least 1, got "
            f"{tuple(series.shape)} and {tuple(relevance.shape)}"
        )
    series, relevance = series.detach(), relevance.detach()
    length, count = series.shape
    names = [f"variable {number + 1}" for number in range(count)] if names is None else names
    if len(names) != count:
        raise ValueError(f"{len(names)} names for {count} variables")
    if not bool(relevance.isfinite().all()):
        raise ValueError("relevance is not finite")
    most = float(relevance.abs().max()) or 1.0
    figure = Figure(figsize=(8, 0.9 * count + 0.9), dpi=110, layout="constrained")
    axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for number, axis in enumerate(axes):
        values = series[:, number].float().cpu().numpy()
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        room = 0.08 * (high - low) or 1.0
        low, high = low - room, high + room
        ground = relevance[None, :, number].float().cpu().numpy()
        extent = (-0.5, length - 0.5, low, high)
        colours = axis.imshow(ground, cmap=COLOURS, vmin=-most, vmax=most, extent=extent, aspect="auto")
        axis.plot(range(length), values, color=LINE, linewidth=1.2)
        axis.set_ylabel(names[number], rotation=0, ha="right", va="center")
        axis.set_yticks([])
    axes[-1].set_xlabel(step)
    figure.colorbar(colours, ax=list(axes), label="relevance", pad=0.01)
    figure.suptitle(title, fontsize=11)
    return figure
