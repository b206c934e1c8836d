"""Sequences with their relevance by several methods, and every score of it; each is explained once."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from rnnx_lightning.explain import LRP, Attributor
from rnnx_lightning.metrics import MajorityCosineSimilarity
from rnnx_lightning.metrics.relevance import SequenceMean

GIVEN = ("relevance", "majority", "image", "label", "network", "explained")  # what a score's `update` can ask for


def default_scores() -> dict[str, Metric]:
    """The score of the study, by the name that it has in logs, tables and reports."""
    return {"cosine": MajorityCosineSimilarity()}


@dataclass(frozen=True)
class Explained:
    """B sequences of S samples, explained by several methods.

    Attributes:
        image: (B, 1, H, S * W) in [-1, 1].
        label: (B,) int64, the class that is explained.
        prediction: (B,) int64, the class that the network says.
        majority: (B, S) bool, true where a sample is of the majority class; None where that is not known.
        relevance: (B, 1, H, S * W) by method.
        scores: (B,) by score and method; of the scores that are means of one value a sequence.
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

    A score is a `torchmetrics.Metric` whose `update` names what it asks for, of these:

    - `relevance` (B, 1, H, S * W), of one method;
    - `majority` (B, S) bool, and `image` (B, 1, H, S * W) in [-1, 1];
    - `label` (B,), the explained class;
    - `network`, from pictures to logits (B, classes);
    - `explained` (B,), the relevance that was sent down: relevance propagation alone has it.

    It is left out where something that it asks for is not known.

    Args:
        methods: by name.
        scores: by name; each method gets copies of its own.

    Attributes:
        metrics: by score and method.

    Raises:
        ValueError: a score asks for something else.
    """

    def __init__(self, methods: Mapping[str, Attributor], scores: Mapping[str, Metric]) -> None:
        self.methods = methods
        self._needs = {name: _needs(name, score) for name, score in scores.items()}
        self._sent = any("explained" in _parameters(score) for score in scores.values())
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
        """Explain B sequences, once by each method, and count them in the scores.

        Args:
            network: from pictures to logits (B, classes).
            image: (B, 1, H, S * W) in [-1, 1].
            label: (B,) class to explain.
            majority: (B, S) bool; None: not known.
            prediction: (B,) class that the network says.
        """
        relevance = {name: method(network, image, label) for name, method in self.methods.items()}
        known: dict[str, Any] = {"image": image, "label": label, "network": network}
        if majority is not None:
            known["majority"] = majority
        logit = _logit(network, image, label) if self._sent else None
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


@torch.no_grad()
def _logit(network: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """(B,) of the explained class, computed as the explanations are: not under a training's half precision."""
    return network(image).gather(1, label[:, None]).squeeze(1)


def _parameters(score: Metric) -> Mapping[str, inspect.Parameter]:
    """What the `update` of a score names."""
    parameters = inspect.signature(score.update).parameters
    return {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _needs(name: str, score: Metric) -> set[str]:
    """What a score cannot do without."""
    needs = {key for key, parameter in _parameters(score).items() if parameter.default is parameter.empty}
    if unknown := sorted(needs - set(GIVEN)):
        raise ValueError(
            f"score {name!r}, {type(score).__name__}, asks for {', '.join(unknown)}: its `update` may name "
            f"{', '.join(GIVEN)}"
        )
    return needs
