"""zennit's composites by name; in YAML `rules: rnnx_lightning.explain.EpsilonPlusFlat`.

What reads pixels is found, in a recurrent network at each step, where zennit takes the first layer that was made.
Relevance is the same in a network that is fed forward and begins with a convolution (for Flat: any linear layer),
but that a negative bias takes no part in `AlphaBeta`, and a unit whose contributions have one sign keeps all its
relevance there. zennit starts from what it is given, `LRP` from the logit.
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
    """Flat for what reads pixels, z+ for convolutions, epsilon for everything else.

    Args:
        epsilon: stabiliser of the epsilon rule.
        stabilizer: the same for average pooling; the other rules need none.
    """
    return _by_kind(epsilon, stabilizer, ZPlus(), Flat())


def EpsilonAlpha2Beta1Flat(epsilon: float = 1e-6, stabilizer: float = 1e-6) -> Composite:  # noqa: N802
    """Flat for what reads pixels, alpha 2 and beta 1 for convolutions, epsilon for everything else.

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
    """z^B for what reads pixels, gamma for convolutions, epsilon for everything else.

    Args:
        low: the least value that a pixel can have; see `ZBox`.
        high: the greatest.
        epsilon: stabiliser of the epsilon rule.
        gamma: of the gamma rule.
        stabilizer: of average pooling; the other rules need none.
    """
    return _by_kind(epsilon, stabilizer, Gamma(gamma), ZBox(low, high))


def _by_kind(epsilon: float, stabilizer: float, convolution: Rule, pixels: Rule) -> Composite:
    by_type: dict[type[nn.Module], Rule] = dict.fromkeys(CONVOLUTIONS, convolution)
    by_type |= {kind: Epsilon(stabilizer) for kind in POOLINGS}
    # As a part of the layer before; what it adds to one that reads pixels takes part as little as that one's bias.
    by_type |= dict.fromkeys(NORMS, pixels)
    return Composite(Epsilon(epsilon), pixels=pixels, by_type=by_type)
