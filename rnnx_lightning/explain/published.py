"""The methods of the study."""

from dataclasses import dataclass
from functools import cached_property

from rnnx_lightning.explain.attributor import Attributor
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.gradients import Sensitivity
from rnnx_lightning.explain.guided import GuidedBackprop
from rnnx_lightning.explain.linear import Channel, LinearMap
from rnnx_lightning.explain.lrp import LRP, DeepTaylor
from rnnx_lightning.explain.rules import AlphaBeta, ZBox
from rnnx_lightning.explain.sharing import Sharing, TwoSided


@dataclass(frozen=True)
class ZBoxBesideAlphaBeta(ZBox):
    """z^B as one side of alpha-beta: its contributions, none of them negative, are among the positive ones.

    Where pixels alone are read it is z^B. In Shallow, whose first layer reads a recurrent state with them, pixels
    and the positive contributions of the state share one denominator.

    Attributes:
        alpha: of the rule that the state has.
        beta: of the same.
    """

    alpha: float = 1.5
    beta: float = 0.5

    @cached_property
    def sharing(self) -> Sharing:  # type: ignore[override]
        """That of alpha-beta."""
        return TwoSided(self.alpha, self.beta)

    def channels(self, layer: LinearMap) -> tuple[Channel | None, ...]:  # type: ignore[override]
        """The contributions of z^B, and nothing negative."""
        return layer.boxed(self.low, self.high), None


def published_methods() -> dict[str, Attributor]:
    """The four methods of the study, by the names that they have in logs and pictures (docs/explaining.md)."""
    return {
        "Sensitivity": Sensitivity(),
        "GuidedBackprop": GuidedBackprop(gates="constant"),
        "DeepTaylor": DeepTaylor(),
        "LRP": LRP(Composite(AlphaBeta(1.5, 0.5), pixels=ZBoxBesideAlphaBeta(-1, 1))),
    }
