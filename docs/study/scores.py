"""Measures the networks that come with rnnx by every score of the package.

    python docs/study/scores.py [COUNT]

COUNT is the number of test sequences (default: 2000). Writes docs/study/scores.csv, one row per network, data set,
score and method. Then `python docs/study/tables.py` puts them into docs/results_evidence.md.
"""

import csv
import sys
from pathlib import Path

import torch
from torchmetrics import Metric

from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.explained import ScoredMethods
from rnnx_lightning.metrics import (
    ConservationError,
    DeletionArea,
    MajorityCosineSimilarity,
    PixelFlippingArea,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
)
from rnnx_lightning.pretrained import load_trained

OUT = Path(__file__).with_name("scores.csv")
SCORES: dict[str, Metric] = {
    "cosine": MajorityCosineSimilarity(),
    "mass accuracy": RelevanceMassAccuracy(),
    "rank accuracy": RelevanceRankAccuracy(),
    "pixel flipping": PixelFlippingArea(),
    "pixel flipping, random order": PixelFlippingArea(random_order=True),
    "deletion of time steps": DeletionArea([1, 28, 7]),
    "deletion of time steps, random order": DeletionArea([1, 28, 7], random_order=True),
    "conservation error": ConservationError(),
}
AT_ONCE = 200


def measure(network: str, dataset: str, count: int) -> list[dict[str, object]]:
    """The rows of one trained network."""
    classifier, data = load_trained(None, f"{network}-{dataset}")
    data.prepare_test()
    scored = ScoredMethods(published_methods(), SCORES)
    for start in range(0, count, AT_ONCE):
        image, label, majority = data.sequences("test", range(start, min(start + AT_ONCE, count)))
        with torch.no_grad():
            prediction = classifier(image).argmax(1)
        scored.explain(classifier.network, image, label, majority, prediction)
    return [
        {"network": network, "dataset": dataset, "count": count, "score": score, "method": method}
        | {"value": round(float(metric.compute()), 4)}
        for score, metrics in scored.metrics.items()
        for method, metric in metrics.items()
    ]


def main(count: int) -> None:
    """Measure all and write the table."""
    rows = [
        row
        for dataset in ("mnist", "fashion_mnist")
        for network in ("rlstm", "evidence")
        for row in measure(network, dataset, count)
    ]
    with OUT.open("w", newline="") as stream:
        table = csv.DictWriter(stream, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
