"""Quantus' metrics as scores: `class_path: rnnx_lightning.metrics.Quantus`."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rnnx_lightning.metrics.relevance import SequenceMean


class Quantus(SequenceMean):
    """Mean of a metric of Quantus that gives one number an example.

    Args:
        metric: a class of `quantus`: FaithfulnessCorrelation, Sparseness, Complexity, ... Those that explain once
            more (robustness, randomisation) are called in Python, with `explain.quantus_explain_func`.
        options: of the class; lists stay lists.

    Raises:
        ImportError: Quantus is not installed.
        ValueError: it has no such metric; later, the metric gives something else than one number an example.
    """

    def __init__(self, metric: str, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        try:
            quantus = importlib.import_module("quantus")
        except ImportError as error:
            raise ImportError(
                f"the score {metric!r} is Quantus', which is not installed: pip install quantus"
            ) from error
        kind = getattr(quantus, metric, None)
        if not isinstance(kind, type) or not callable(getattr(kind, "evaluate_batch", None)):
            raise ValueError(f"quantus has no metric {metric!r}")
        self.metric = metric
        given = {"return_aggregate": False, "disable_warnings": True, "display_progressbar": False}
        self._score: Callable[..., Any] = kind(**{**given, **(options or {})})

    def update(self, network: nn.Module, image: Tensor, label: Tensor, relevance: Tensor) -> None:
        """Count in pictures and relevance (B, ...) of a network's explained classes (B,)."""
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
            raise ValueError(f"Quantus' {self.metric} gives no number an example: {error}") from error
        if values.shape != (len(image),):
            raise ValueError(
                f"Quantus' {self.metric} gives numbers of shape {tuple(values.shape)} for {len(image)} examples, "
                "not one each"
            )
        self.add(values)
