"""The methods of the study."""

from rnnx_lightning.explain.attributor import Attributor
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.gradients import Sensitivity
from rnnx_lightning.explain.guided import GuidedBackprop
from rnnx_lightning.explain.lrp import LRP, DeepTaylor
from rnnx_lightning.explain.rules import AlphaBeta, ZBox


def published_methods() -> dict[str, Attributor]:
    """The four methods of the study, by their names in logs and pictures (docs/explaining.md)."""
    return {
        "Sensitivity": Sensitivity(),
        "GuidedBackprop": GuidedBackprop(gates="constant"),
        "DeepTaylor": DeepTaylor(),
        "LRP": LRP(Composite(AlphaBeta(1.5, 0.5), pixels=ZBox(-1, 1))),
    }
