"""Rules of layer-wise relevance propagation: how a linear layer shares the relevance of its outputs.

Each rule is a declaration: which products of inputs and weights count as contributions. A unit j with
relevance R_j gives input i the share of i's contributions in the sum of all.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

from rnnx_lightning.explain.linear import Channel, LinearMap
from rnnx_lightning.explain.sharing import Proportional, Sharing, TwoSided

SIMPLE = Proportional()
SIGNED = Proportional(signed=True)


class Rule(ABC):
    """What the explainer asks of a rule."""

    @property
    @abstractmethod
    def sharing(self) -> Sharing:
        """How relevance is shared among the channels; linear maps that are summed must agree in it."""

    @property
    @abstractmethod
    def zero_gets_nothing(self) -> bool:
        """An input that is 0 contributes nothing."""

    @abstractmethod
    def channels(self, layer: LinearMap) -> tuple[Channel | None, ...]:
        """The sums of contributions; None for a negative one where nothing is negative."""


@dataclass(frozen=True)
class ZPlus(Rule):
    """z+ (alpha 1, beta 0): R_i = sum_j (a_i w_ij)+ / sum_i' (a_i' w_i'j)+ * R_j [BML+16, MLB+17].

    A positive bias takes its share of the relevance; a negative one counts for nothing.
    """

    sharing = SIMPLE
    zero_gets_nothing = True

    def channels(self, layer: LinearMap) -> tuple[Channel, ...]:
        """The positive contributions."""
        return (layer.positive(),)


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """R_i = sum_j (alpha (a_i w_ij)+ / z+_j - beta (a_i w_ij)- / z-_j) R_j, alpha - beta = 1 [BML+16].

    A positive bias is part of z+; a negative one counts for nothing. Where z+_j or z-_j has no contribution at
    all, the other takes R_j whole.

    Attributes:
        alpha: weight of the positive contributions, >= 1.
        beta: weight of the negative contributions, >= 0.

    Raises:
        ValueError: alpha - beta is not 1, or beta is negative.
    """

    alpha: float = 2.0
    beta: float = 1.0
    zero_gets_nothing = True

    def __post_init__(self) -> None:
        if abs(self.alpha - self.beta - 1) > 1e-9 or self.beta < 0:
            raise ValueError(f"alpha={self.alpha}, beta={self.beta}: alpha - beta must be 1 and beta >= 0")

    @cached_property
    def sharing(self) -> Sharing:
        """Two-sided, or proportional where beta is 0."""
        return TwoSided(self.alpha, self.beta) if self.beta else Proportional()

    def channels(self, layer: LinearMap) -> tuple[Channel | None, ...]:
        """The positive and the negative contributions."""
        return layer.positive_and_negative() if self.beta else (layer.positive(),)


@dataclass(frozen=True)
class Epsilon(Rule):
    """R_i = sum_j a_i w_ij / (z_j + epsilon sign(z_j)) R_j [BML+16]; the bias takes its share.

    Attributes:
        epsilon: stabiliser >= 0.
    """

    epsilon: float = 1e-6
    zero_gets_nothing = True

    @cached_property
    def sharing(self) -> Sharing:
        """Proportional, stabilised."""
        return Proportional(self.epsilon, signed=True)

    def channels(self, layer: LinearMap) -> tuple[Channel, ...]:
        """All contributions as they are."""
        return (layer.net(),)


@dataclass(frozen=True)
class Gamma(Rule):
    """R_i = sum_j (a_i w_ij + gamma (a_i w_ij)+) / sum_i' (...) R_j [Montavon et al., 2019].

    Attributes:
        gamma: how much positive contributions are favoured, >= 0.
    """

    gamma: float = 0.25
    sharing = SIGNED
    zero_gets_nothing = True

    def channels(self, layer: LinearMap) -> tuple[Channel, ...]:
        """All contributions, the positive ones once more gamma times."""
        net, positive = layer.net(), layer.positive()
        more = [product.scaled(self.gamma) for product in positive.products]
        return (Channel(net.total + self.gamma * positive.total, net.products + more),)


@dataclass(frozen=True)
class ZBox(Rule):
    """z^B for inputs in [low, high]: contributions x_i w_ij - low w+_ij - high w-_ij [MLB+17]; no bias.

    They are (x_i - low) w+_ij + (x_i - high) w-_ij, all of them positive.

    Attributes:
        low: the least value that an input can have.
        high: the greatest.

    Raises:
        ValueError: low is not below high.
    """

    low: float = -1.0
    high: float = 1.0
    sharing = SIMPLE
    zero_gets_nothing = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")

    def channels(self, layer: LinearMap) -> tuple[Channel, ...]:
        """The contributions above."""
        return (layer.boxed(self.low, self.high),)


@dataclass(frozen=True)
class WSquare(Rule):
    """w^2: R_i = sum_j w_ij^2 / sum_i' w_i'j^2 R_j, whatever the inputs are [MLB+17]; no bias."""

    sharing = SIMPLE
    zero_gets_nothing = False

    def channels(self, layer: LinearMap) -> tuple[Channel, ...]:
        """The squared weights."""
        return (layer.squared_weights(),)


@dataclass(frozen=True)
class Flat(Rule):
    """All inputs of a unit get the same share of its relevance, whatever inputs and weights are; no bias.

    A weight that is exactly 0 (pruned, masked) is no connection.
    """

    sharing = SIMPLE
    zero_gets_nothing = False

    def channels(self, layer: LinearMap) -> tuple[Channel, ...]:
        """One for each input."""
        return (layer.ones(),)
