"""Heatmaps of the same sequences by all networks of a study."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from rnnx_lightning.checkpoints import load_classifier, load_data
from rnnx_lightning.compare.study import Run
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.explained import ScoredMethods, default_scores
from rnnx_lightning.rendering.heatmaps import draw_heatmaps


def draw_gallery(runs: Sequence[Run], count: int) -> dict[tuple[str, str], Figure]:
    """Draw one picture for each data set and network, from its first finished run.

    Args:
        runs: the runs of a study.
        count: number of test sequences; the first ones of the first run's plan are drawn.

    Returns:
        Figures by data set and network.
    """
    figures: dict[tuple[str, str], Figure] = {}
    sequences: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]] = {}
    for run in runs:
        key = (run.dataset, run.network)
        if key in figures or not run.results.exists() or not run.checkpoint.exists():
            continue
        if run.dataset not in sequences:
            data = load_data(run.checkpoint)
            data.prepare_data()
            data.setup()
            sequences[run.dataset] = (*data.sequences("test", range(count)), data.class_names)
        image, label, majority, names = sequences[run.dataset]
        model = load_classifier(run.checkpoint)
        with torch.no_grad():
            prediction = model(image).argmax(dim=1)
        scored = ScoredMethods(published_methods(), default_scores())
        figures[key] = draw_heatmaps(scored.explain(model.network, image, label, majority, prediction), names)
    return figures
