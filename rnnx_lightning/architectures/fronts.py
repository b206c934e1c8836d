"""Input parts: what a network computes from one time step only."""

from torch import nn

from rnnx_lightning.architectures.layers import SumLikePool2d, bias_free_conv, bias_free_linear, check_columns


def linear_front(rows: int, columns: int, *widths: int) -> nn.Sequential:
    """Linear layers, ReLU after each.

    Args:
        rows: height of a step in pixels.
        columns: width of a step in pixels.
        widths: output widths of the layers.

    Returns:
        A module from (N, 1, rows, columns) to (N, widths[-1]).
    """
    layers: list[nn.Module] = [nn.Flatten()]
    check_columns(columns)
    for inputs, outputs in zip((rows * columns, *widths), widths, strict=False):
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
    """
    check_columns(columns)
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
