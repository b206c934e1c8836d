"""Draws relevance over time steps: the same sequences, several networks.

    python docs/study/over_time.py OUT.png INDEX[,INDEX...] TITLE=CHECKPOINT [TITLE=CHECKPOINT ...]

Checkpoints are those of evidence.py. One row a network, one column a sequence; above, the sequence with its
majority samples framed; bars are the relevance (LRP) of each time step as a share of the logit.
"""

import sys

import torch
from evidence import DATA, METHODS, RECIPE, build, data_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from rnnx_lightning.metrics.functional import majority_cosine_similarity
from rnnx_lightning.rendering.heatmaps import colour_relevance
from rnnx_lightning.rendering.sequences import MAJORITY_COLOUR

OTHER_COLOUR = "#999999"


def frame(axis: Axes, majority: Tensor, width: int, height: int) -> None:
    """Frame the majority samples."""
    for position in majority.nonzero().flatten().tolist():
        corner = (position * width - 0.5, -0.5)
        axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=MAJORITY_COLOUR, linewidth=2))


def main() -> None:
    """Load, explain, draw."""
    out, indices, *pairs = sys.argv[1:]
    rows = [int(index) for index in indices.split(",")]
    saved = {title: torch.load(path, weights_only=True) for title, path in (p.split("=", 1) for p in pairs)}
    first = next(iter(saved.values()))
    data = data_of(RECIPE | first["recipe"], DATA | first["shape"])
    image, label, majority = data.sequences("test", rows)
    steps, width = image.shape[3] // data.columns, data.sample_width
    figure = Figure(figsize=(4.2 * len(rows), 1.6 + 2.6 * len(saved)), dpi=110, layout="constrained")
    heights = [1, *[1, 0.9] * len(saved)]
    axes = figure.subplots(len(heights), len(rows), squeeze=False, height_ratios=heights)
    for column in range(len(rows)):
        axes[0, column].imshow(-image[column, 0], cmap="gray", aspect="auto")
        axes[0, column].set_title(f"class {data.class_names[int(label[column])]}", fontsize=10)
        frame(axes[0, column], majority[column], width, 28)
    for number, (title, one) in enumerate(saved.items()):
        network = build(one["name"], one["options"]).eval()
        network.load_state_dict(one["state"])
        relevance = METHODS["LRP"](network, image, label)
        cosine = majority_cosine_similarity(relevance, majority)
        colours = colour_relevance(relevance).permute(0, 2, 3, 1)
        share = relevance.unflatten(3, (steps, data.columns)).sum(dim=(1, 2, 4))
        share = share / share.sum(1, keepdim=True)
        for column in range(len(rows)):
            shown, bars = axes[1 + 2 * number, column], axes[2 + 2 * number, column]
            shown.imshow(colours[column], aspect="auto")
            shown.set_title(f"{title}: cosine similarity {cosine[column]:.3f}", fontsize=10)
            frame(shown, majority[column], width, 28)
            of_majority = majority[column].repeat_interleave(width)[:: data.columns]
            colour = [MAJORITY_COLOUR if belongs else OTHER_COLOUR for belongs in of_majority.tolist()]
            bars.bar(range(1, steps + 1), share[column].tolist(), color=colour)
            bars.set_xlim(0.5, steps + 0.5)
            bars.set_ylim(min(0.0, float(share.min())) * 1.05, float(share.max()) * 1.05)
            bars.set_ylabel("share", fontsize=9)
            if number == len(saved) - 1:
                bars.set_xlabel("time step", fontsize=9)
    for axis in axes.flat:
        if axis.images:
            axis.set_axis_off()
    figure.savefig(out)


if __name__ == "__main__":
    main()
