"""Recurrent modules as they are: what an explanation costs beside plain NumPy and beside its own gradient."""

import argparse
import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import median_seconds
from rnnx_lightning.explain import LRP, AlphaBeta, Epsilon, ZPlus
from rnnx_lightning.explain.cudnn import DifferentiableLayers
from rnnx_lightning.explain.process_settings import full_precision

EPSILON = 1e-3
IN_TURN = 10  # single sequences, one after the other: how they are explained one at a time
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
    """LRP of a `Reader` of one layer in plain NumPy, as the published code for [AMMS17] goes about it.

    One example at a time; every sum of every step becomes a dense matrix of messages, with a part for the bias; a
    memory is closed at every step.

    Args:
        network: its weights are copied.
    """

    def __init__(self, network: Reader) -> None:
        self.units = network.rnn.hidden_size
        weights = {name: p.detach().numpy() for name, p in network.rnn.named_parameters()}
        self.weights = [
            [weights[f"{kind}_l0{way}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            for way in ("", "_reverse")
        ]
        self.out = network.out.weight.detach().numpy()

    def __call__(self, x: np.ndarray, target: int) -> np.ndarray:
        """Relevance (T, D) of one sequence (T, D)."""
        ways = [x, x[::-1]]
        runs = [self._run(*way) for way in zip(ways, self.weights, strict=True)]
        last = np.concatenate([run["hidden"][-2] for run in runs])
        logits = self.out @ last
        start = np.where(np.arange(len(logits)) == target, logits, 0).astype(x.dtype)
        parts = np.split(messages(last, self.out.T, 0 * logits, logits, start), 2)
        one, other = (self._back(*way) for way in zip(ways, self.weights, runs, parts, strict=True))
        return one + other[::-1]

    def _run(self, x: np.ndarray, weights: list[np.ndarray]) -> dict[str, np.ndarray]:
        w, u, b, c = weights
        n, steps = self.units, len(x)
        # The last row is the start state: the step before the first has index -1.
        hidden, memory = np.zeros((steps + 1, n), x.dtype), np.zeros((steps + 1, n), x.dtype)
        gates, opened = np.zeros((steps, 4 * n), x.dtype), np.zeros((steps, 4 * n), x.dtype)
        for t in range(steps):
            gates[t] = w @ x[t] + u @ hidden[t - 1] + b + c
            opened[t] = 1 / (1 + np.exp(-gates[t]))
            opened[t, 2 * n : 3 * n] = np.tanh(gates[t, 2 * n : 3 * n])
            i, f, g, o = np.split(opened[t], 4)
            memory[t] = f * memory[t - 1] + i * g
            hidden[t] = o * np.tanh(memory[t])
        return {"hidden": hidden, "memory": memory, "gates": gates, "opened": opened}

    def _back(
        self, x: np.ndarray, weights: list[np.ndarray], run: dict[str, np.ndarray], relevance: np.ndarray
    ) -> np.ndarray:
        n, result = self.units, np.zeros_like(x)
        one, none = np.eye(n, dtype=x.dtype), np.zeros(n, x.dtype)
        signal = slice(2 * n, 3 * n)
        w, u, b, c = (weight[signal] for weight in weights)
        hidden, memory, kept = run["hidden"], run["memory"], none
        for t in reversed(range(len(x))):
            i, f, g, _ = np.split(run["opened"][t], 4)
            at_memory = kept + relevance
            kept = messages(f * memory[t - 1], one, none, memory[t], at_memory)
            at_signal = messages(i * g, one, none, memory[t], at_memory)
            argument = run["gates"][t, signal]
            relevance = messages(hidden[t - 1], u.T, b + c, argument, at_signal)
            result[t] = messages(x[t], w.T, b + c, argument, at_signal)
        return result


def messages(
    a: np.ndarray, w: np.ndarray, b: np.ndarray, z: np.ndarray, relevance: np.ndarray, bias_factor: float = 0.0
) -> np.ndarray:
    """sum_j (a_i w_ij + factor (b_j + epsilon sign(z_j)) / N) / (z_j + epsilon sign(z_j)) R_j."""
    sign = np.where(z >= 0, 1, -1).astype(z.dtype)[None, :]
    parts = w * a[:, None] + bias_factor * (b[None, :] + EPSILON * sign) / len(a)
    return (parts / (z[None, :] + EPSILON * sign) * relevance[None, :]).sum(axis=1)


def gradient(network: nn.Module, x: Tensor, target: int) -> Callable[[], Tensor]:
    """One forward and one input-only backward pass."""

    def run() -> Tensor:
        leaf = x.detach().clone().requires_grad_()
        with DifferentiableLayers() if x.is_cuda else nullcontext():
            value = network(leaf)[:, target].sum()
        return torch.autograd.grad(value, leaf)[0]

    return run


@full_precision()
def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a size and candidate, with the ratio of time that there is a goal for."""
    device, repeats = options.device, options.repeats
    torch.manual_seed(0)
    small = Reader(60, 60).eval().requires_grad_(False)
    x = torch.randn(100, 20, 60)
    by_hand = InNumPy(small)
    small_there, x_there = copy.deepcopy(small).to(device), x.to(device)

    def one_by_one(method: LRP) -> list[Any]:
        return [method(small_there, sequence, 1) for sequence in x_there[:IN_TURN].split(1)]

    candidates: dict[str, Callable[[], object]] = {
        "plain NumPy": lambda: [by_hand(sequence, 1) for sequence in x[:IN_TURN].numpy()]
    }
    for name, method in METHODS.items():
        candidates[f"{name}, one"] = partial(one_by_one, method)
        candidates[f"{name}, 100"] = partial(method, small_there, x_there, 1)
    seconds = median_seconds(candidates, device, 5 * repeats)
    seconds |= {name: value / IN_TURN for name, value in seconds.items() if not name.endswith("100")}
    rows = [_row("60 units, 20 steps", "plain NumPy, one", seconds["plain NumPy"], None, None)]
    for name in METHODS:
        one, hundred = seconds[f"{name}, one"], seconds[f"{name}, 100"]
        rows.append(_row("60 units, 20 steps", f"{name}, one", one, one / seconds["plain NumPy"], 0.5))
        rows.append(_row("60 units, 20 steps", f"{name}, 100 at once", hundred, hundred / (100 * one), 0.05))
    large = Reader(256, 256, 2).to(device).eval().requires_grad_(False)
    batch = torch.randn(32, 200, 256, device=device)
    candidates = {"gradient": gradient(large, batch, 1)}
    candidates |= {name: partial(method, large, batch, 1) for name, method in METHODS.items()}
    seconds = median_seconds(candidates, device, max(repeats // 2, 1), warm_up=1)
    for name, value in seconds.items():
        goal = 3.0 if name == "Epsilon" else None
        rows.append(_row("2 x 256 units, 200 steps, batch 32", name, value, value / seconds["gradient"], goal))
    return rows


def _row(network: str, method: str, seconds: float, ratio: float | None, goal: float | None) -> dict[str, Any]:
    return {"network": network, "method": method, "ms": seconds * 1e3, "time": ratio, "goal": goal}
