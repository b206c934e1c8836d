"""Input parts: what a network computes from one time step only."""

from itertools import pairwise

from torch import nn

from rnnx_lightning.architectures.layers import SumLikePool2d, bias_free_conv, bias_free_linear, check_sizes


def linear_front(rows: int, columns: int, **widths: int) -> nn.Sequential:
    """Linear layers, ReLU after each.

    Args:
        rows: height of a step in pixels.
        columns: width of a step in pixels.
        **widths: output widths of the layers, under the names that their networks give them.

    Returns:
        A module from (N, 1, rows, columns) to (N, the last of the widths).

    Raises:
        ValueError: a size is below 1.
    """
    check_sizes(rows=rows, columns=columns, **widths)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise((rows * columns, *widths.values())):
        layers += [bias_free_linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def conv_front(rows: int, columns: int, features: int) -> nn.Sequential:
    """Conv 5 x 5 x 24, pool, conv 3 x 3 x 32, pool, linear; ReLU after each layer.

    Args:
        rows: height of a step in pixels.
        columns: width of a step in pixels.
        features: width of the output.

    Returns:
        A module from (N, 1, rows, columns) to (N, features).

    Raises:
        ValueError: a size is below 1.
    """
    check_sizes(rows=rows, columns=columns, features=features)
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
