"""How time and memory grow with the length of the sequences and with the batch."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.measure import median_seconds, peak_bytes
from rnnx_lightning.architectures import RLSTM
from rnnx_lightning.classifier import rejection_cross_entropy
from rnnx_lightning.explain import DeepTaylor, InChunks

SAMPLES = (3, 9, 30, 90)
BATCHES = (32, 64, 128, 256)
CHUNK = 8


def _candidates(batch: int, samples: int, device: torch.device) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    network = RLSTM().to(device)
    image = torch.rand(batch, 1, 28, 28 * samples, device=device) * 2 - 1
    label = torch.randint(0, 10, (batch,), device=device)

    def train() -> None:
        network.train().zero_grad()
        rejection_cross_entropy(network(image), label).backward()

    def explain(method: Any) -> Callable[[], object]:
        return lambda: method(network.eval(), image, label)

    return {
        "train": train,
        "DeepTaylor": explain(DeepTaylor()),
        f"DeepTaylor in chunks of {CHUNK}": explain(InChunks(DeepTaylor(), CHUNK)),
    }


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a size; the exponent p of time ~ size^p and memory ~ size^p is in the rows of the largest size."""
    sizes = [(32, samples) for samples in SAMPLES], [(batch, 9) for batch in BATCHES]
    rows = []
    for by, cases in zip(("samples", "batch"), sizes, strict=True):
        series: dict[str, list[tuple[float, float, float]]] = {}
        for batch, samples in cases:
            candidates = _candidates(batch, samples, options.device)
            seconds = median_seconds(candidates, options.device, max(options.repeats // 2, 2), warm_up=1)
            for name, run in candidates.items():
                size = samples if by == "samples" else batch
                series.setdefault(name, []).append((size, seconds[name], peak_bytes(run, options.device)))
        for name, points in series.items():
            size, time, memory = np.log(np.array(points)).T
            rows.append(
                {
                    "work": name,
                    "grows with": by,
                    "sizes": " ".join(str(int(point[0])) for point in points),
                    "ms": " ".join(f"{point[1] * 1e3:.0f}" for point in points),
                    "MiB": " ".join(f"{point[2] / 2**20:.0f}" for point in points),
                    "exponent of time": stats.linregress(size, time).slope,
                    "exponent of memory": stats.linregress(size, memory).slope,
                }
            )
    return rows
