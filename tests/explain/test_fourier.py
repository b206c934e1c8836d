"""Fourier transforms as matrices."""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, UnexplainableError, ZPlus
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


def joined(spectrum):
    return torch.cat([spectrum[:, :2], torch.zeros_like(spectrum[:, 2:])], 1)


def in_place(spectrum):
    spectrum[:, 2:] = 0
    return spectrum


def through_a_view(spectrum):
    turned = spectrum.mT
    turned[..., 2:].zero_()
    turned[..., 0] *= 2
    spectrum[:, 0] /= 2
    return spectrum


def into_zeros(spectrum):
    low = torch.zeros_like(spectrum.mT).mT
    low[:, :2] = spectrum[:, :2]
    return low


class Filter(nn.Module):
    """Low frequencies of a series (B, T, 3), transformed along its first dimension, as in FITS."""

    def __init__(self, cut):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.read, self.out = cut, nn.Linear(3, 4), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.randn(4, dtype=torch.cdouble))
        self.double()

    def forward(self, x):
        spectrum = torch.fft.rfft(self.read(x), dim=1)
        return self.out(torch.fft.irfft(self.cut(spectrum) * self.scale, dim=1).tanh().sum(1))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("bias", ["share", "spread"])
@pytest.mark.parametrize("rule", [Epsilon(1e-9), ZPlus(), AlphaBeta(2, 1), Gamma(0.25)])
@pytest.mark.parametrize("cut", [in_place, through_a_view, into_zeros])
def test_a_spectrum_may_be_overwritten_in_whichever_order_it_lies(cut, rule, bias, create_graph):
    x = torch.randn(2, 6, 3, dtype=torch.double)
    assert not torch.fft.rfft(x, dim=1).is_contiguous()
    expected = LRP(Composite(rule, bias=bias), start="logit")(Filter(joined), x, 1)
    method = LRP(Composite(rule, bias=bias), start="logit", create_graph=create_graph)
    torch.testing.assert_close(method(Filter(cut), x, 1).detach(), expected)


# What is overwritten as real numbers and read as complex ones, or the other way round, and its ordinary form. All read
# the pairs (B, 4, 2) that a layer gives.
PADDED = torch.tensor([False, False, True, True])[:, None]
TURN = torch.polar(torch.ones(4).double(), torch.arange(4.0).double())


def complex_of(pairs):
    """Complex numbers in memory of their own."""
    return torch.view_as_complex(pairs) * TURN


def real_view_is_padded(h):
    spectrum = complex_of(h)
    torch.view_as_real(spectrum).masked_fill_(PADDED, 0.0)
    return torch.view_as_real(spectrum)


def turned_real_view_is_padded(h):
    spectrum = complex_of(h)
    torch.view_as_real(spectrum).transpose(1, 2).mul_(~PADDED.mT)
    return torch.view_as_real(spectrum)


def real_view_is_read_after(h):
    spectrum = complex_of(h)
    pairs = torch.view_as_real(spectrum)
    spectrum[:, 2:] = 0
    return pairs


def one_part(h):
    spectrum = complex_of(h)
    spectrum.real[:, 2:] = 0
    spectrum.imag[:, 2:] *= 0
    return torch.view_as_real(spectrum * 1)


def into_zeros_of_both_parts(h):
    spectrum = torch.zeros(len(h), 4, dtype=torch.complex128)
    turned = complex_of(h)
    spectrum.real[:, :2].copy_(turned.real[:, :2])
    spectrum.imag[:, :2] = turned.imag[:, :2]
    return torch.view_as_real(spectrum)


def conjugates_are_read_after(h):
    """The real part of conjugates, and their imaginary part, which is negated in its memory."""
    spectrum = complex_of(h)
    conjugates, negated = spectrum.conj(), spectrum.conj().imag
    spectrum[:, 2:] = 0
    return torch.stack([conjugates.real, -negated], -1)


def padded(h):
    return torch.view_as_real(complex_of(h)).masked_fill(PADDED, 0.0)


def pairs_are_padded(h):
    pairs = h * 1
    spectrum = torch.view_as_complex(pairs)
    pairs[:, 2:] = 0
    return torch.view_as_real(spectrum * TURN)


def pairs_are_read_after(h):
    pairs = h * 1
    spectrum = torch.view_as_complex(pairs)
    spectrum.mul_(TURN)
    spectrum[:, 2:] = 0
    return pairs


ACROSS = [
    real_view_is_padded,
    turned_real_view_is_padded,
    real_view_is_read_after,
    one_part,
    into_zeros_of_both_parts,
    pairs_are_padded,
    pairs_are_read_after,
]


class Pairs(nn.Module):
    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way, self.read, self.out = way, nn.Linear(5, 8).double(), nn.Linear(8, 3).double()

    def forward(self, x):
        return self.out(self.way(self.read(x).view(-1, 4, 2)).flatten(1))


@pytest.mark.parametrize("rule", [ZPlus(), Epsilon(1e-12), AlphaBeta(2, 1), Gamma(0.25)])
@pytest.mark.parametrize("way", [*ACROSS, conjugates_are_read_after])
def test_real_and_complex_views_show_what_is_written_to_the_other(way, rule):
    x = torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(Pairs(way)(x), Pairs(padded)(x))
    ours, expected = (LRP(rule, start="logit")(Pairs(f), x, 1) for f in (way, padded))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("way", ACROSS)
def test_a_graph_through_such_views_is_refused(way):
    with pytest.raises(UnexplainableError, match=r"is overwritten as torch.*create_graph"):
        LRP(Epsilon(), create_graph=True)(Pairs(way), torch.randn(2, 5, dtype=torch.float64), 1)


@pytest.mark.parametrize("part", [lambda conjugates: conjugates, lambda conjugates: conjugates.imag])
def test_conjugates_that_are_overwritten_are_refused(part):
    def way(h):
        spectrum = complex_of(h)
        part(spectrum.conj()).mul_(2)
        return torch.view_as_real(spectrum)

    with pytest.raises(UnexplainableError, match="overwrites conjugates"):
        LRP(Epsilon())(Pairs(way), torch.randn(2, 5, dtype=torch.float64), 1)
