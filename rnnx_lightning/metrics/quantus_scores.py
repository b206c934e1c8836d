"""Quantus' metrics as scores: `class_path: rnnx_lightning.metrics.Quantus`."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rnnx_lightning.metrics.relevance import SequenceMean


class Quantus(SequenceMean):
    """Mean of a Quantus metric that returns one number per example.

    Args:
        metric: a class of `quantus`: FaithfulnessCorrelation, Sparseness, Complexity, ... Metrics that compute
            explanations themselves (robustness, randomisation) can only be used from Python, with
            `explain.quantus_explain_func`.
        options: arguments of the class; lists stay lists.

    Raises:
        ImportError: Quantus is not installed.
        ValueError: Quantus has no such metric, or (in `update`) it does not return one number per example.
    """

    def __init__(self, metric: str, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        try:
            quantus = importlib.import_module("quantus")
        except ImportError as error:
            raise ImportError(
                f"the score {metric!r} needs Quantus, which is not installed: pip install quantus"
            ) from error
        kind = getattr(quantus, metric, None)
        if not isinstance(kind, type) or not callable(getattr(kind, "evaluate_batch", None)):
            raise ValueError(f"quantus has no metric {metric!r}")
        self.metric = metric
        given = {"return_aggregate": False, "disable_warnings": True, "display_progressbar": False}
        self._score: Callable[..., Any] = kind(**{**given, **(options or {})})

    def update(self, network: nn.Module, image: Tensor, label: Tensor, relevance: Tensor) -> None:
        """Add pictures and relevance (B, ...) for the explained classes (B,) of a network."""
        found = self._score(
            network,
            image.cpu().numpy(),
            label.cpu().numpy(),
            a_batch=relevance.detach().cpu().numpy(),
            device=str(image.device),
        )
        try:
            values = torch.as_tensor(found, dtype=torch.float64, device=image.device)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Quantus' {self.metric} does not return one number per example: {error}") from error
        if values.shape != (len(image),):
            raise ValueError(
                f"Quantus' {self.metric} returns numbers of shape {tuple(values.shape)} for {len(image)} "
                "examples, not one per example"
            )
        self.add(values)
