"""Pictures of sequences with labels, predictions and majority samples."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

MAJORITY_COLOUR = "#0072B2"  # blue and vermilion are colour-blind-safe
WRONG_COLOUR = "#D55E00"


def check_drawable(image: Tensor, label: Tensor, prediction: Tensor, class_names: Sequence[str]) -> None:
    """Refuse what cannot be drawn.

    Raises:
        ValueError: there are no sequences, or not one label, prediction and class name for each.
    """
    if image.dim() != 4 or len(image) == 0 or not label.shape == prediction.shape == image.shape[:1]:
        raise ValueError(
            "image, label and prediction must have the shapes (B, 1, H, S * W), (B,) and (B,) for one or more "
            f"sequences, got {tuple(image.shape)}, {tuple(label.shape)} and {tuple(prediction.shape)}"
        )
    if (highest := int(torch.cat([label, prediction]).max())) >= len(class_names):
        raise ValueError(f"there are {len(class_names)} class_names, but a sequence of class {highest}")


def draw_sequences(
    image: Tensor,
    label: Tensor,
    prediction: Tensor,
    majority: Tensor,
    class_names: Sequence[str],
    columns: int = 3,
) -> Figure:
    """Draw sequences in a grid: majority samples framed, label and prediction above, errors in vermilion.

    Args:
        image: (B, 1, H, S * W) in [-1, 1].
        label: (B,) majority class.
        prediction: (B,) predicted class.
        majority: (B, S) bool, True where a sample is of the majority class.
        class_names: by label.
        columns: number of sequences in a row.

    Returns:
        A matplotlib figure, not registered with pyplot.

    Raises:
        ValueError: shapes, class names or the number of columns do not fit.
    """
    check_drawable(image, label, prediction, class_names)
    if columns < 1:
        raise ValueError(f"columns={columns} must be at least 1")
    rows = -(-len(image) // columns)
    height, width = image.shape[-2:]
    sample = width // majority.shape[1]
    figure = Figure(figsize=(3.2 * columns, (3.2 * height / width + 0.35) * rows + 0.4), dpi=110)
    figure.suptitle(
        "majority samples framed in blue; label → prediction, errors in vermilion",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for number, axis in enumerate(axes):
        axis.set_axis_off()
        if number >= len(image):
            continue
        axis.imshow(image[number, 0].float().cpu(), cmap="gray", vmin=-1, vmax=1)
        for position, is_majority in enumerate(majority[number].tolist()):
            if is_majority:
                corner = (position * sample, 0)
                axis.add_patch(
                    Rectangle(corner, sample - 1, height - 1, fill=False, edgecolor=MAJORITY_COLOUR, linewidth=2)
                )
        truth, guess = int(label[number]), int(prediction[number])
        colour = "black" if truth == guess else WRONG_COLOUR
        axis.set_title(f"{class_names[truth]} → {class_names[guess]}", fontsize=9, color=colour)
    figure.tight_layout()
    return figure
