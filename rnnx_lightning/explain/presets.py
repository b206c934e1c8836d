"""zennit's composites by name; in YAML `rules: rnnx_lightning.explain.EpsilonPlusFlat`.

rnnx finds the layers that read pixels (in a recurrent network at each step), whereas zennit takes the first layer
that was created. In a feed-forward network that starts with a convolution (for Flat: any linear layer), the
relevance is the same, except in `AlphaBeta`: there, rnnx ignores negative biases, and keeps all relevance of a
unit whose contributions have one sign. zennit starts from the relevance it is given, `LRP` from the logit.
"""

from torch import nn

from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.rules import AlphaBeta, Epsilon, Flat, Gamma, PixelBound, Rule, ZBox, ZPlus

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
POOLINGS = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def EpsilonPlusFlat(epsilon: float = 1e-6, stabilizer: float = 1e-6) -> Composite:  # noqa: N802
    """Flat for layers that read pixels, z+ for convolutions, epsilon for everything else.

    Args:
        epsilon: stabiliser of the epsilon rule.
        stabilizer: the same for average pooling; the other rules need none.

    Examples:
        >>> from rnnx_lightning.explain import LRP
        >>> method = LRP(EpsilonPlusFlat())
        >>> method.composite.pixels
        Flat()
    """
    return _by_kind(epsilon, stabilizer, ZPlus(), Flat())


def EpsilonAlpha2Beta1Flat(epsilon: float = 1e-6, stabilizer: float = 1e-6) -> Composite:  # noqa: N802
    """Flat for layers that read pixels, alpha 2 and beta 1 for convolutions, epsilon for everything else.

    Args:
        epsilon: stabiliser of the epsilon rule.
        stabilizer: the same for average pooling; the other rules need none.
    """
    return _by_kind(epsilon, stabilizer, AlphaBeta(2.0, 1.0), Flat())


def EpsilonGammaBox(  # noqa: N802
    low: PixelBound | None = None,
    high: PixelBound | None = None,
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    stabilizer: float = 1e-6,
) -> Composite:
    """z^B for layers that read pixels, gamma for convolutions, epsilon for everything else.

    Args:
        low: the smallest possible value of a pixel; see `ZBox`.
        high: the largest possible value.
        epsilon: stabiliser of the epsilon rule.
        gamma: parameter of the gamma rule.
        stabilizer: stabiliser of average pooling; the other rules need none.
    """
    return _by_kind(epsilon, stabilizer, Gamma(gamma), ZBox(low, high))


def _by_kind(epsilon: float, stabilizer: float, convolution: Rule, pixels: Rule) -> Composite:
    by_type: dict[type[nn.Module], Rule] = dict.fromkeys(CONVOLUTIONS, convolution)
    by_type |= {kind: Epsilon(stabilizer) for kind in POOLINGS}
    # A norm is part of the layer before it. If that reads pixels, the norm's shift is ignored, like its bias.
    by_type |= dict.fromkeys(NORMS, pixels)
    return Composite(Epsilon(epsilon), pixels=pixels, by_type=by_type)
