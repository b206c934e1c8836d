"""Fourier transforms as matrices."""

import pytest
import torch

from rnnx_lightning.explain.operations.complex_numbers import transform

aten = torch.ops.aten


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 8, 12, 31, 100, 997, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_0_is_not_rounded(n, dtype):
    """Other devices leave 1e-17 there, which z+ cannot tell from a contribution."""

    def rounded(unit):
        spectrum = aten._fft_r2c(unit, [1], 0, True)
        return spectrum + torch.finfo(dtype).eps * torch.randn_like(spectrum)

    matrix = transform(torch.zeros(1, dtype=dtype), n, False, rounded).unflatten(1, (-1, 2))
    turn = torch.arange(n)[:, None] * torch.arange(n // 2 + 1) % n  # in parts of n
    angle = 2 * torch.pi * turn.double() / n
    expected = torch.stack([angle.cos(), -angle.sin()], -1)
    expected[..., 0][(4 * turn == n) | (4 * turn == 3 * n)] = 0
    expected[..., 1][(2 * turn) % n == 0] = 0
    assert torch.equal(matrix == 0, expected == 0)
    torch.testing.assert_close(matrix, expected.to(dtype), rtol=0, atol=20 * torch.finfo(dtype).eps)
