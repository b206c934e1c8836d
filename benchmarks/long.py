"""A long sequence: the memory and time of an explanation, at once and in segments of time steps."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import median_seconds, peak_bytes
from benchmarks.recurrent import METHODS, gradient
from rnnx_lightning.explain import InChunks
from rnnx_lightning.explain.process_settings import full_precision

LENGTHS, UNITS, INPUTS = (2_500, 10_000), 128, 16


class Last(nn.Module):
    """Three logits from the last step of an `nn.LSTM`."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(INPUTS, UNITS, batch_first=True)
        self.out = nn.Linear(UNITS, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, 3)."""
        return self.out(self.rnn(x)[0][:, -1])


@full_precision()
def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a length and candidate; segments have the square root of the length."""
    torch.manual_seed(0)
    network, rows = Last().to(options.device).eval().requires_grad_(False), []
    for length in LENGTHS:
        x, steps = torch.randn(1, length, INPUTS, device=options.device), round(length**0.5)
        target = int(network(x).argmax())
        candidates: dict[str, Callable[[], object]] = {"gradient": gradient(network, x, target)}
        for name, method in METHODS.items():
            candidates[name] = partial(method, network, x, target)
            in_segments = InChunks(method, steps=steps)
            candidates[f"{name}, {steps} steps at a time"] = partial(in_segments, network, x, target)
        seconds = median_seconds(candidates, options.device, max(options.repeats // 2, 1), warm_up=1)
        for name, run in candidates.items():
            rows.append(
                {
                    "steps": length,
                    "work": name,
                    "s": seconds[name],
                    "MiB": peak_bytes(run, options.device) / 2**20,
                }
            )
    return rows
