"""Heatmaps of relevance: a symmetric scale, white for zero, and colour-blind-safe blue and red."""

from collections.abc import Sequence
from itertools import product

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from rnnx_lightning.explained import Explained
from rnnx_lightning.rendering.sequences import WRONG_COLOUR, check_drawable

NEGATIVE = (0.13, 0.40, 0.67)
POSITIVE = (0.70, 0.09, 0.17)
SATURATION = 0.995  # share of the pixels inside the colour scale; the others are clipped
UNKNOWN = 0.6  # grey, for NaN
FRAME = "#222222"  # not a colour of the scale
GAP = 4  # pixels between pictures


def colour_relevance(relevance: Tensor) -> Tensor:
    """Colours of relevance; each map has its own scale, symmetric around zero.

    Args:
        relevance: (B, 1, H, W).

    Returns:
        (B, 3, H, W) in [0, 1]: red for positive, blue for negative, white for zero relevance. A map with
        NaN is grey.

    Examples:
        >>> colour_relevance(torch.tensor([[[[1.0, 0.0, -1.0]]]]))[0, :, 0].T
        tensor([[0.7000, 0.0900, 0.1700],
                [1.0000, 1.0000, 1.0000],
                [0.1300, 0.4000, 0.6700]])
    """
    flat = relevance.float().flatten(1)
    scale = torch.quantile(flat.abs(), SATURATION, dim=1)
    scale = torch.where(scale > 0, scale, flat.abs().amax(1)).clamp(min=torch.finfo(flat.dtype).tiny)
    strength = (relevance.float() / scale.view(-1, 1, 1, 1)).clamp(-1, 1)
    ends = torch.tensor([NEGATIVE, POSITIVE], device=relevance.device)
    negative, positive = ends.view(2, 1, 3, 1, 1)
    colour = torch.where(strength < 0, negative, positive)
    return torch.lerp(torch.ones_like(colour), colour, strength.abs().expand_as(colour)).nan_to_num(UNKNOWN)


def _grid(pictures: Sequence[Tensor]) -> Tensor:
    """From C stacks of pictures (B, 3, H, W) to one picture (H', W', 3): B rows, C columns, white gaps."""
    padded = [torch.nn.functional.pad(p, (0, GAP, 0, GAP), value=1.0) for p in pictures]
    return torch.cat(padded, dim=3).permute(0, 2, 3, 1).flatten(0, 1)


def draw_heatmaps(explained: Explained, class_names: Sequence[str]) -> Figure:
    """Draw one row per sequence: the input, and one heatmap per method with its first score.

    Args:
        explained: the sequences; samples of the majority class are framed, if known.
        class_names: by label.

    Returns:
        A matplotlib figure, not registered with pyplot.

    Raises:
        ValueError: shapes or class names do not fit.
    """
    image, label, prediction = explained.image, explained.label, explained.prediction
    relevance, majority = explained.relevance, explained.majority
    check_drawable(image, label, prediction, class_names)
    for name, part in relevance.items():
        if part.shape != image.shape:
            raise ValueError(
                f"relevance by {name!r} must have the shape of the image, {tuple(image.shape)}, got "
                f"{tuple(part.shape)}"
            )
    score, values = next(iter(explained.scores.items()), ("", {}))
    height, width = image.shape[-2:]
    grey = (1 - (image.float() + 1) / 2).expand(-1, 3, -1, -1)
    grid = _grid([grey, *map(colour_relevance, relevance.values())])
    columns, rows = len(relevance) + 1, len(image)
    cell_height, cell_width = height + GAP, width + GAP
    # Space on the left for classes, on top for methods; about 2.4 screen pixels per picture pixel.
    inches = 2.4 / 100
    left, top = 62, 26
    size = (cell_width * columns + left, cell_height * rows + top)
    figure = Figure(figsize=(size[0] * inches, size[1] * inches), dpi=100)
    axis = figure.add_axes((left / size[0], 0, 1 - left / size[0], 1 - top / size[1]))
    axis.imshow(grid.cpu().numpy(), interpolation="nearest", aspect="auto")
    axis.set_axis_off()
    for column, name in enumerate(("input", *relevance)):
        axis.text(column * cell_width + width / 2, -3, name, ha="center", va="bottom", fontsize=12)
    for row in range(rows):
        truth, guess = class_names[int(label[row])], class_names[int(prediction[row])]
        colour = "black" if truth == guess else WRONG_COLOUR
        y = row * cell_height
        axis.text(-5, y + height / 2, f"{truth}\n→ {guess}", ha="right", va="center", fontsize=10, color=colour)
        mask = [] if majority is None else majority[row].tolist()
        for column, (position, framed) in product(range(columns), enumerate(mask)):
            if framed:
                sample = width // len(mask)
                corner = (column * cell_width + position * sample - 0.5, y - 0.5)
                axis.add_patch(Rectangle(corner, sample, height, fill=False, edgecolor=FRAME, linewidth=1.4))
        for column, name in enumerate(relevance, start=1):
            if name in values:
                x = column * cell_width + width - 1
                axis.text(x, y + 1, f"{float(values[name][row]):.2f}", ha="right", va="top", fontsize=7.5)
    axis.set_xlim(-0.5, cell_width * columns - 0.5)
    axis.set_ylim(cell_height * rows - 0.5, -0.5)
    note = "red is relevance for the class, blue against it"
    if majority is not None:
        note = f"samples of the majority class are framed; {note}"
    if values:
        note += f"; numbers: {score}"
    figure.text(0.005, 1 - 3 / size[1], note, fontsize=8, va="top", color="#555555")
    return figure
