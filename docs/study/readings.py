"""Scores the test sequences of finished runs by the study's methods with other options; writes readings.csv.

python docs/study/readings.py logs/compare/runs/*-fold-of-*
"""

import sys
from pathlib import Path

import pandas as pd
import torch
from results import FOLDER, HERE, take_in

from rnnx_lightning.checkpoints import load_classifier, load_data
from rnnx_lightning.explain import LRP, GuidedBackprop, Sensitivity
from rnnx_lightning.metrics.functional import majority_cosine_similarity

READINGS = {
    "Sensitivity, gates constant": Sensitivity(gates="constant"),
    "GuidedBackprop, through gates": GuidedBackprop(),
    "LRP, alpha-beta for pixels": LRP(alpha=1.5, beta=0.5),
}
AT_ONCE = 500


def score(run: Path, scored: str = "last") -> pd.DataFrame:
    """One row per reading."""
    named = FOLDER.fullmatch(run.name)
    assert named is not None, run.name
    checkpoint = run / "checkpoints" / f"{scored}.ckpt"
    network, data = load_classifier(checkpoint).network.eval(), load_data(checkpoint)
    data.setup()
    count = len(data.plan("test").label)
    total = dict.fromkeys(READINGS, 0.0)
    for start in range(0, count, AT_ONCE):
        image, label, majority = data.sequences("test", range(start, min(start + AT_ONCE, count)))
        for name, method in READINGS.items():
            similarity = majority_cosine_similarity(method(network, image, label), majority)
            total[name] += float(similarity.double().sum()) / count
    rows = [{"reading": name, "cosine": value} for name, value in total.items()]
    return pd.DataFrame(rows).assign(
        network=named["network"], dataset=named["dataset"], repetition=int(named["fold"])
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for folder in map(Path, sys.argv[1:]):
        if (folder / "results.json").exists():
            take_in(score(folder), HERE / "readings.csv", ["dataset", "network", "repetition", "reading"])
