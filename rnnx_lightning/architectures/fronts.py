"""Input parts: what a network computes from one time step alone."""

from torch import nn

from rnnx_lightning.architectures.layers import SumLikePool2d, bias_free_conv, bias_free_linear


def conv_front(rows: int, columns: int, features: int) -> nn.Sequential:
    """Conv 5 x 5 x 24, pool, conv 3 x 3 x 32, pool, linear; ReLU after each layer.

    Args:
        rows: height of a step in pixels.
        columns: width of a step in pixels.
        features: width of the output.

    Returns:
        A module from (N, 1, rows, columns) to (N, features).
    """
    pooled = -(-rows // 4) * -(-columns // 4)
    return nn.Sequential(
        bias_free_conv(1, 24, 5),
        nn.ReLU(),
        SumLikePool2d(),
        bias_free_conv(24, 32, 3),
        nn.ReLU(),
        SumLikePool2d(),
        nn.Flatten(),
        bias_free_linear(pooled * 32, features),
        nn.ReLU(),
    )
