"""Sequences with their relevance by several methods and the scores of it; each sequence is explained once."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from rnnx_lightning.explain import LRP, Attributor
from rnnx_lightning.explain.inputs import output_at
from rnnx_lightning.metrics import MajorityCosineSimilarity
from rnnx_lightning.metrics.relevance import SequenceMean

GIVEN = ("relevance", "majority", "image", "label", "network", "explained")  # arguments that a score may have


def default_scores() -> dict[str, Metric]:
    """The score of the study, by its name in logs, tables and reports."""
    return {"cosine": MajorityCosineSimilarity()}


@dataclass(frozen=True)
class Explained:
    """B sequences of S samples, explained by several methods.

    Attributes:
        image: (B, 1, H, S * W) in [-1, 1].
        label: (B,) int64, the explained class.
        prediction: (B,) int64, the predicted class.
        majority: (B, S) bool, True where a sample is of the majority class; None if unknown.
        relevance: (B, 1, H, S * W) by method.
        scores: (B,) by score and method, for scores that are means of one value per sequence.
    """

    image: Tensor
    label: Tensor
    prediction: Tensor
    majority: Tensor | None
    relevance: Mapping[str, Tensor]
    scores: Mapping[str, Mapping[str, Tensor]]

    def first(self, count: int) -> "Explained":
        """The first `count` sequences."""
        return replace(
            self,
            image=self.image[:count],
            label=self.label[:count],
            prediction=self.prediction[:count],
            majority=None if self.majority is None else self.majority[:count],
            relevance={method: part[:count] for method, part in self.relevance.items()},
            scores={
                score: {method: values[:count] for method, values in by_method.items()}
                for score, by_method in self.scores.items()
            },
        )


class ScoredMethods:
    """Several methods, and metrics that score each of them.

    A score is a `torchmetrics.Metric`. The arguments of its `update` may be any of these:

    - `relevance` (B, 1, H, S * W) of one method;
    - `majority` (B, S) bool, and `image` (B, 1, H, S * W) in [-1, 1];
    - `label` (B,), the explained class;
    - `network`, which maps pictures to logits (B, classes);
    - `explained` (B,), the relevance at the output; only relevance propagation has it.

    A score is skipped if one of its arguments is not known.

    Args:
        methods: by name.
        scores: by name; each method gets its own copies.

    Attributes:
        metrics: by score and method.

    Raises:
        ValueError: a method or score is none, or a score has another argument.
    """

    def __init__(self, methods: Mapping[str, Attributor], scores: Mapping[str, Metric]) -> None:
        for name, method in methods.items():
            if not isinstance(method, Attributor):
                raise ValueError(f"method {name!r} must be an Attributor, such as LRP(), got {method!r}")
        for name, score in scores.items():
            if not isinstance(score, Metric):
                raise ValueError(f"score {name!r} must be a torchmetrics.Metric, got {score!r}")
        self.methods = methods
        self._needs = {name: _needs(name, score) for name, score in scores.items()}
        self._needs_logit = any("explained" in _parameters(score) for score in scores.values())
        self.metrics = {
            name: {
                method: score.clone()
                for method, attributor in methods.items()
                if isinstance(attributor, LRP) or "explained" not in self._needs[name]
            }
            for name, score in scores.items()
        }

    def explain(
        self, network: nn.Module, image: Tensor, label: Tensor, majority: Tensor | None, prediction: Tensor
    ) -> Explained:
        """Explain B sequences, once by each method, and add them to the scores.

        Args:
            network: maps pictures to logits (B, classes).
            image: (B, 1, H, S * W) in [-1, 1].
            label: (B,) class to explain.
            majority: (B, S) bool; None if unknown.
            prediction: (B,) predicted class.
        """
        relevance = {name: method(network, image, label) for name, method in self.methods.items()}
        known: dict[str, Any] = {"image": image, "label": label, "network": network}
        if majority is not None:
            known["majority"] = majority
        logit = _logit(network, image, label) if self._needs_logit else None
        values: dict[str, dict[str, Tensor]] = {}
        for score, metrics in self.metrics.items():
            for name, metric in metrics.items():
                given, method = {**known, "relevance": relevance[name]}, self.methods[name]
                if logit is not None and isinstance(method, LRP):
                    given["explained"] = logit.clamp(min=0) if method.start == "positive" else logit
                if self._needs[score] <= given.keys():
                    asked = _parameters(metric)
                    metric.update(**{key: value for key, value in given.items() if key in asked})
                    if isinstance(metric, SequenceMean):
                        values.setdefault(score, {})[name] = metric.values
        return Explained(image, label, prediction, majority, relevance, values)


def _logit(network: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """(B,) logit of the explained class, in the precision of the explanations (not in half-precision training)."""
    return output_at(network, image).gather(1, label[:, None]).squeeze(1)


def _parameters(score: Metric) -> Mapping[str, inspect.Parameter]:
    """The named arguments of a score's `update`."""
    parameters = inspect.signature(score.update).parameters
    return {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _needs(name: str, score: Metric) -> set[str]:
    """The required arguments of a score's `update`."""
    needs = {key for key, parameter in _parameters(score).items() if parameter.default is parameter.empty}
    if unknown := sorted(needs - set(GIVEN)):
        raise ValueError(
            f"score {name!r}, {type(score).__name__}, needs {', '.join(unknown)}: its `update` may have "
            f"{', '.join(GIVEN)} as arguments"
        )
    return needs
