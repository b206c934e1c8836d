"""Draws the way of a sequence from pixels to a logit, and the way of relevance back.

python docs/study/idea.py docs/pictures/idea.png
"""

import sys

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

STEPS, BLUE, RED = 12, "#1f5fa8", "#c0392b"


def main(out: str) -> None:
    """Draw it."""
    mpl.rcParams["font.size"] = 9
    figure = Figure(figsize=(7.6, 3.5), layout="constrained")
    axes = figure.subplots()
    digits = load_digits()
    for place, label in enumerate((3, 3, 8)):
        image = digits.images[(digits.target == label).nonzero()[0][place]]
        axes.imshow(-image, cmap="gray", extent=(4 * place, 4 * place + 4, 0, 3.2), aspect="auto")
    for x in range(STEPS + 1):
        axes.plot([x, x], [0, 3.2], color="0.6", lw=0.5)
    box = {"boxstyle": "round,pad=0.35", "fc": "white", "ec": BLUE}
    for step in range(STEPS):
        middle = step + 0.5
        axes.text(middle, 5, f"$h_{{{step + 1}}}$", ha="center", va="center", color=BLUE, bbox=box)
        arrow(axes, (middle - 0.12, 3.3), (middle - 0.12, 4.45), BLUE)
        arrow(axes, (middle + 0.12, 4.45), (middle + 0.12, 3.3), RED)
        if step + 1 < STEPS:
            arrow(axes, (middle + 0.3, 5.2), (middle + 0.7, 5.2), BLUE)
            arrow(axes, (middle + 0.7, 4.8), (middle + 0.3, 4.8), RED)
    axes.text(STEPS + 0.9, 5, "logit\nof 3", ha="center", va="center", bbox={**box, "ec": "black"})
    arrow(axes, (STEPS - 0.2, 5.2), (STEPS + 0.4, 5.2), BLUE)
    arrow(axes, (STEPS + 0.4, 4.8), (STEPS - 0.2, 4.8), RED)
    axes.text(0, 6.1, "the network reads 7 pixel columns per step", color=BLUE)
    axes.text(STEPS + 1.4, 6.1, "relevance: all of it starts at the logit", color=RED, ha="right")
    axes.text(4, -0.5, "two of one class: the majority", ha="center", va="top")
    axes.text(10, -0.5, "one of another class", ha="center", va="top")
    axes.plot([0.05, 7.95], [-0.2, -0.2], color="black", lw=2)
    axes.set(xlim=(-0.3, STEPS + 1.6), ylim=(-1.2, 6.6))
    axes.axis("off")
    figure.savefig(out, dpi=200)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    """From one point to another."""
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    )


if __name__ == "__main__":
    main(sys.argv[1])
