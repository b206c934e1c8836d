"""Explanation methods for any torch network: `relevance = DeepTaylor()(model, x, target)`."""

from rnnx_lightning.explain.attributor import Attributor, explained_logit
from rnnx_lightning.explain.averages import IntegratedGradients, SmoothGrad
from rnnx_lightning.explain.baselines import Input, Random
from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.chunks import InChunks
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.gradients import GradientTimesInput, Sensitivity
from rnnx_lightning.explain.guided import GuidedBackprop, NoReLUWarning
from rnnx_lightning.explain.lrp import LRP, DeepTaylor, Explanation
from rnnx_lightning.explain.neighbours import Captum, quantus_explain_func
from rnnx_lightning.explain.operations import register
from rnnx_lightning.explain.presets import EpsilonAlpha2Beta1Flat, EpsilonGammaBox, EpsilonPlusFlat
from rnnx_lightning.explain.refusals import (
    NotFiniteWarning,
    NothingToExplainWarning,
    NumPyWarning,
    PixelRangeWarning,
    TrainingModeWarning,
    UnexplainableError,
)
from rnnx_lightning.explain.rules import AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus
from rnnx_lightning.explain.sharing import Proportional, Sharing, Signed, TwoSided

__all__ = [
    "LRP",
    "AlphaBeta",
    "Attributor",
    "Captum",
    "Channel",
    "Composite",
    "DeepTaylor",
    "Epsilon",
    "EpsilonAlpha2Beta1Flat",
    "EpsilonGammaBox",
    "EpsilonPlusFlat",
    "Explanation",
    "Flat",
    "Gamma",
    "GradientTimesInput",
    "GuidedBackprop",
    "InChunks",
    "Input",
    "IntegratedGradients",
    "NoReLUWarning",
    "NotFiniteWarning",
    "NothingToExplainWarning",
    "NumPyWarning",
    "PixelRangeWarning",
    "Proportional",
    "Random",
    "Rule",
    "Sensitivity",
    "Sharing",
    "Signed",
    "SmoothGrad",
    "TrainingModeWarning",
    "TwoSided",
    "UnexplainableError",
    "WSquare",
    "ZBox",
    "ZPlus",
    "explained_logit",
    "quantus_explain_func",
    "register",
]
