"""Recurrent modules as they are: what an explanation costs beside plain NumPy, its own gradient, and one by one."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import median_seconds
from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, ZPlus

EPSILON = 1e-3
METHODS = {"Epsilon": LRP(Epsilon(EPSILON)), "ZPlus": LRP(ZPlus()), "LRP 1.5/0.5": LRP(AlphaBeta(1.5, 0.5))}


class Reader(nn.Module):
    """Five logits from the last states of an `nn.LSTM` in both directions.

    Args:
        inputs: entries of a step.
        units: of each direction.
        layers: of the LSTM.
    """

    def __init__(self, inputs: int, units: int, layers: int = 1) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, units, layers, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * units, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, 5)."""
        _, (hidden, _) = self.rnn(x)
        return self.out(torch.cat([hidden[-2], hidden[-1]], 1))


class InNumPy:
    """LRP of a `Reader` of one layer as it is written with the equations of [AMMS17] in hand.

    One matrix of messages for each sum of each step; a memory is closed at every step.

    Args:
        network: its weights are copied.
    """

    def __init__(self, network: Reader) -> None:
        self.units = network.rnn.hidden_size
        weights = {name: p.detach().numpy() for name, p in network.rnn.named_parameters()}
        self.directions = [
            (weights[f"weight_ih_l0{way}"], weights[f"weight_hh_l0{way}"], weights[f"bias_ih_l0{way}"] + weights[f"bias_hh_l0{way}"])
            for way in ("", "_reverse")
        ]  # fmt: skip
        self.out = network.out.weight.detach().numpy()

    def __call__(self, x: np.ndarray, target: int) -> np.ndarray:
        """Relevance (T, D) of one sequence (T, D)."""
        runs = [self._run(steps, *weights) for steps, weights in zip((x, x[::-1]), self.directions, strict=True)]
        last = np.concatenate([hidden[-1] for hidden, *_ in runs])
        logits = self.out @ last
        start = np.where(np.arange(len(logits)) == target, logits, 0.0).astype(x.dtype)
        parts = np.split(messages(last, self.out.T, logits, start), 2)
        both = [
            self._back(steps, part, run, *weights[:2])
            for steps, part, run, weights in zip((x, x[::-1]), parts, runs, self.directions, strict=True)
        ]
        return both[0] + both[1][::-1]

    def _run(self, x: np.ndarray, w: np.ndarray, u: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
        n, steps = self.units, len(x)
        hidden, memory = np.zeros((steps + 1, n), x.dtype), np.zeros((steps + 1, n), x.dtype)
        argument, keep, written = (np.zeros((steps, n), x.dtype) for _ in range(3))
        for t in range(steps):
            gates = w @ x[t] + u @ hidden[t - 1] + b
            i, f, o = (1 / (1 + np.exp(-gates[k * n : (k + 1) * n])) for k in (0, 1, 3))
            argument[t] = gates[2 * n : 3 * n]
            keep[t], written[t] = f, i * np.tanh(argument[t])
            memory[t] = f * memory[t - 1] + written[t]
            hidden[t] = o * np.tanh(memory[t])
        return [hidden[:-1], hidden, memory, argument, keep, written]

    def _back(self, x: np.ndarray, relevance: np.ndarray, run: list[np.ndarray], w: np.ndarray, u: np.ndarray) -> np.ndarray:
        _, hidden, memory, argument, keep, written = run
        n, one, result = self.units, np.eye(self.units, dtype=x.dtype), np.zeros_like(x)
        w, u = w[2 * n : 3 * n].T, u[2 * n : 3 * n].T
        kept = np.zeros(n, x.dtype)
        for t in reversed(range(len(x))):
            at_memory = kept + relevance
            kept = messages(keep[t] * memory[t - 1], one, memory[t], at_memory)
            at_signal = messages(written[t], one, memory[t], at_memory)
            relevance = messages(hidden[t - 1], u, argument[t], at_signal)
            result[t] = messages(x[t], w, argument[t], at_signal)
        return result


def messages(a: np.ndarray, w: np.ndarray, z: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Relevance of inputs: sum_j a_i w_ij / (z_j + epsilon sign(z_j)) R_j."""
    shares = w * a[:, None] / (z + EPSILON * np.where(z >= 0, 1.0, -1.0).astype(z.dtype))[None, :]
    return (shares * relevance[None, :]).sum(axis=1)


def gradient(network: nn.Module, x: Tensor, target: int) -> Callable[[], Tensor]:
    """One forward and one input-only backward pass."""

    def run() -> Tensor:
        leaf = x.detach().clone().requires_grad_()
        return torch.autograd.grad(network(leaf)[:, target].sum(), leaf)[0]

    return run


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a size and candidate, with the ratio of time that there is a goal for."""
    device, repeats = options.device, options.repeats
    torch.manual_seed(0)
    small = Reader(60, 60).eval().requires_grad_(False)
    x = torch.randn(100, 20, 60)
    by_hand = InNumPy(small)
    candidates: dict[str, Callable[[], object]] = {"plain NumPy": lambda: by_hand(x[0].numpy(), 1)}
    small_there = Reader(60, 60).to(device).eval().requires_grad_(False)
    x_there = x.to(device)
    for name, method in METHODS.items():
        candidates[f"{name}, one"] = lambda m=method: m(small_there, x_there[:1], 1)
        candidates[f"{name}, 100"] = lambda m=method: m(small_there, x_there, 1)
    seconds = median_seconds(candidates, device, 5 * repeats)
    rows = [_row("60 units, 20 steps", "plain NumPy, one", seconds["plain NumPy"], None, None)]
    for name in METHODS:
        one, hundred = seconds[f"{name}, one"], seconds[f"{name}, 100"]
        rows.append(_row("60 units, 20 steps", f"{name}, one", one, one / seconds["plain NumPy"], 0.5))
        rows.append(_row("60 units, 20 steps", f"{name}, 100 at once", hundred, hundred / (100 * one), 0.05))
    large, batch = Reader(256, 256, 2).to(device).eval().requires_grad_(False), torch.randn(32, 200, 256, device=device)
    candidates = {"gradient": gradient(large, batch, 1)}
    candidates |= {name: lambda m=method: m(large, batch, 1) for name, method in METHODS.items()}
    seconds = median_seconds(candidates, device, max(repeats // 2, 1), warm_up=1)
    for name, value in seconds.items():
        goal = 3.0 if name == "Epsilon" else None
        rows.append(_row("2 x 256 units, 200 steps, batch 32", name, value, value / seconds["gradient"], goal))
    return rows


def _row(network: str, method: str, seconds: float, ratio: float | None, goal: float | None) -> dict[str, Any]:
    return {"network": network, "method": method, "ms": seconds * 1e3, "time": ratio, "goal": goal}
