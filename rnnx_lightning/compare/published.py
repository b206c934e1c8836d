"""The results of [Cho18]: means over ten folds, read off its plots to about +-0.002, and its findings."""

from typing import NamedTuple

METHODS = ("Sensitivity", "GuidedBackprop", "DeepTaylor", "LRP")

_COSINE = {
    "mnist": {
        "Shallow": (0.727, 0.756, 0.478, 0.496),
        "Deep": (0.720, 0.756, 0.681, 0.728),
        "ConvDeep": (0.753, 0.792, 0.769, 0.770),
        "Deep-SD": (0.694, 0.732, 0.661, 0.694),
        "R-LSTM": (0.856, 0.917, 0.917, 0.949),
        "R-LSTM-SD": (0.830, 0.939, 0.909, 0.972),
    },
    "fashion_mnist": {
        "Shallow": (0.711, 0.672, 0.472, 0.478),
        "Deep": (0.712, 0.689, 0.618, 0.669),
        "ConvDeep": (0.725, 0.722, 0.714, 0.709),
        "Deep-SD": (0.696, 0.667, 0.604, 0.634),
        "R-LSTM": (0.851, 0.898, 0.893, 0.935),
        "R-LSTM-SD": (0.828, 0.924, 0.911, 0.952),
    },
}


def published_cosine(dataset: str, network: str, method: str) -> float | None:
    """The published mean, or None if there is none."""
    row = _COSINE.get(dataset, {}).get(network)
    return row[METHODS.index(method)] if row is not None and method in METHODS else None


class Finding(NamedTuple):
    """A published claim: one network is more explainable than another.

    Attributes:
        claim: the claim in words.
        better: name of the more explainable network.
        worse: name of the less explainable network.
        methods: the explanation methods that the claim is about.
    """

    claim: str
    better: str
    worse: str
    methods: tuple[str, ...]


FINDINGS = (
    Finding("Deeper is more explainable than shallow", "Deep", "Shallow", ("DeepTaylor", "LRP")),
    Finding("Convolution helps", "ConvDeep", "Deep", METHODS),
    Finding("R-LSTM is the most explainable", "R-LSTM", "Deep", METHODS),
    Finding("Stationary dropout helps R-LSTM", "R-LSTM-SD", "R-LSTM", ("GuidedBackprop", "LRP")),
)
