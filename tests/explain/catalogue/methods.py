"""The explanation methods that the catalogue is tried with."""

from typing import Any

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Attributor,
    Composite,
    Epsilon,
    Gamma,
    GuidedBackprop,
    ZBox,
    ZPlus,
)

RULES = {"z+": ZPlus(), "epsilon": Epsilon(1e-12), "alpha-beta": AlphaBeta(2, 1), "gamma": Gamma(0.25)}
METHODS = [*RULES, "deep Taylor", "guided backprop"]


def method(name: str, options: dict[str, Any]) -> Attributor:
    """One of the table's methods, with what a network's composite has to be told."""
    if name == "guided backprop":
        return GuidedBackprop()
    if name == "deep Taylor":
        return LRP(Composite(ZPlus(), pixels=ZBox(-6, 6), **options))
    return LRP(Composite(RULES[name], **options))
