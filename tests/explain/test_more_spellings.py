"""Operations that are seldom used, each against another way to write it that torch has in common operations."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Epsilon, Gamma, GuidedBackprop, UnexplainableError, ZPlus

RULES = {"z+": ZPlus(), "epsilon": Epsilon(1e-12), "alpha-beta": AlphaBeta(2, 1), "gamma": Gamma(0.25)}
torch.manual_seed(0)
SQUARE, COMPLEX = torch.randn(4, 4).double() + 4 * torch.eye(4).double(), torch.randn(3, 6, dtype=torch.cdouble)
LOWER = SQUARE.tril()
TAPS = torch.randn(3, 6, 5).double()
ANGLE = torch.rand(6).double()
FIRST = torch.arange(4)[:, None] == 0


def unpooled(a):
    largest, places = F.max_pool1d(a, 2, return_indices=True)
    return F.max_unpool1d(largest, places, 2)


def complex_linear(z):
    real, imaginary = COMPLEX.real, COMPLEX.imag
    a, b = z.real, z.imag
    return torch.stack([a @ real.T - b @ imaginary.T + 1, a @ imaginary.T + b @ real.T], -1)


def turned(a, b):
    """Complex states, turned at every step; what is written reaches a state on two ways."""
    z, turn, state = torch.complex(a, b), torch.polar(ANGLE.cos(), ANGLE), torch.zeros_like(COMPLEX)
    for t in range(4):
        state = turn * state + z[:, t]
    return torch.view_as_real(state)


def turned_parts(a, b):
    p, q, p0, q0 = ANGLE.cos() * ANGLE.cos(), ANGLE.cos() * ANGLE.sin(), torch.zeros(()), torch.zeros(())
    for t in range(4):
        p0, q0 = p * p0 - q * q0 + a[:, t], p * q0 + q * p0 + b[:, t]
    return torch.stack([p0, q0], -1)


def turned_by_gates(a, b):
    """What exp(sigmoid(b) * COMPLEX) makes of a, in real numbers."""
    gate = b.sigmoid()
    length, angle = torch.exp(gate * COMPLEX[0].real), gate * COMPLEX[0].imag
    return torch.stack([length * angle.cos() * a, length * angle.sin() * a], -1)


def written(z, filling=2.0):
    """A tensor that is written into itself in several ways; `filling` is real."""
    rows, kept, last = torch.tensor([2, 0]), torch.tensor([False, True, False, True]), z[:, 3:].expand(-1, 2, -1)
    ways = [z.scatter(1, rows[:, None].expand(last.shape), last), z.index_add(1, rows, last, alpha=2)]
    ways += [z.index_copy(1, rows, last), z.index_fill(1, rows, filling)]
    for where, value in ((rows, last), (kept, 0.0)):
        z = z.clone()
        z[:, where] = value
        ways.append(z)
    return torch.stack(ways, 1)


# Functions of two tensors (B, 4, 6): in the seldom form, in the common one.
SPELLINGS = {
    "complex states that turn": (turned, turned_parts),
    "complex from pairs that were joined": (
        lambda a, b: torch.view_as_real(torch.view_as_complex(torch.cat([a, b], 1).view(-1, 8, 3, 2))[:, 1:5, 0]),
        lambda a, b: torch.cat([a, b], 1).view(-1, 8, 3, 2)[:, 1:5, 0],
    ),
    "real part of a slice of a spectrum": (
        lambda a, b: torch.einsum("bjx,ox->bjo", torch.fft.rfft(a)[..., :3].real, SQUARE[:, :3]),
        lambda a, b: torch.einsum("bjx,ox->bjo", a @ torch.fft.rfft(torch.eye(6).double()).real[:, :3], SQUARE[:, :3]),
    ),
    "complex, written": (
        lambda a, b: torch.view_as_real(written(torch.complex(a, b))),
        lambda a, b: torch.stack([written(a), written(b, 0.0)], -1),
    ),
    "rot90": (lambda a, b: a.rot90(1, [1, 2]), lambda a, b: a.mT.flip(1)),
    "diag_embed": (lambda a, b: torch.diag_embed(a), lambda a, b: a.unsqueeze(-1) * torch.eye(6, dtype=a.dtype)),
    "block_diag": (
        lambda a, b: torch.stack([torch.block_diag(one, two[0]) for one, two in zip(a, b, strict=True)]),
        lambda a, b: torch.cat([F.pad(a, (0, 6)), F.pad(b[:, :1], (6, 0))], 1),
    ),
    "median": (lambda a, b: torch.stack([one.median() for one in a]), lambda a, b: a.flatten(1).median(1).values),
    "nanmedian": (lambda a, b: a.nanmedian(1).values, lambda a, b: a.median(1).values),
    "aminmax": (lambda a, b: torch.cat(torch.aminmax(a, dim=1), 1), lambda a, b: torch.cat([a.amin(1), a.amax(1)], 1)),
    "fmax": (torch.fmax, torch.maximum),
    "fmin": (torch.fmin, torch.minimum),
    "max_unpool": (
        lambda a, b: unpooled(a),
        lambda a, b: torch.where(unpooled(a.detach()) == a.detach(), a, 0),
    ),
    "logaddexp": (torch.logaddexp, lambda a, b: torch.logsumexp(torch.stack([a, b]), 0)),
    "logaddexp2": (
        torch.logaddexp2,
        lambda a, b: torch.logsumexp(torch.stack([a, b], -1) * math.log(2), -1) / math.log(2),
    ),
    "rrelu": (lambda a, b: F.rrelu(a, 0.1, 0.3), lambda a, b: F.leaky_relu(a, 0.2)),
    "remainder": (lambda a, b: a % 0.3, lambda a, b: torch.remainder(a, torch.tensor(0.3, dtype=a.dtype))),
    "addcdiv": (lambda a, b: torch.addcdiv(a, a.flip(1), 2 * a.new_ones(6), value=3), lambda a, b: a + 3 * (a.flip(1) / 2)),
    "deg2rad": (lambda a, b: torch.deg2rad(a), lambda a, b: a * (math.pi / 180)),
    "solve": (lambda a, b: torch.linalg.solve(SQUARE, a), lambda a, b: SQUARE.inverse() @ a),
    "solve_triangular": (
        lambda a, b: torch.linalg.solve_triangular(LOWER, a, upper=False),
        lambda a, b: LOWER.inverse() @ a,
    ),
    "cholesky_solve": (
        lambda a, b: torch.cholesky_solve(a, LOWER.expand(len(a), 4, 4)),
        lambda a, b: (LOWER @ LOWER.T).inverse() @ a,
    ),
    "conv_tbc": (
        lambda a, b: torch.conv_tbc(a.transpose(0, 1).contiguous(), TAPS, TAPS.new_ones(5), 1).transpose(0, 1),
        lambda a, b: F.conv1d(a.mT, TAPS.permute(2, 1, 0), TAPS.new_ones(5), padding=1).mT,
    ),
    "complex linear layer": (
        lambda a, b: torch.view_as_real(F.linear(torch.complex(a, b), COMPLEX, COMPLEX.new_ones(3))),
        lambda a, b: complex_linear(torch.complex(a, b)),
    ),
    "complex addcmul": (
        lambda a, b: torch.view_as_real(
            torch.addcmul(torch.complex(a, b), torch.complex(b, a), COMPLEX[:1], value=0.5)
        ),
        lambda a, b: torch.view_as_real(torch.complex(a, b) + 0.5 * (torch.complex(b, a) * COMPLEX[:1])),
    ),
    "complex addcdiv": (
        lambda a, b: torch.view_as_real(torch.addcdiv(torch.complex(a, b), torch.complex(b, a), COMPLEX[:1])),
        lambda a, b: torch.view_as_real(torch.complex(a, b) + torch.complex(b, a) / COMPLEX[:1]),
    ),
    "complex lerp": (
        lambda a, b: torch.view_as_real(torch.lerp(torch.complex(a, b), COMPLEX[:1], 0.25)),
        lambda a, b: torch.view_as_real(0.75 * torch.complex(a, b) + 0.25 * COMPLEX[:1]),
    ),
    "complex exp of a gate": (
        lambda a, b: torch.view_as_real(a * torch.exp(b.sigmoid() * COMPLEX[0])),
        turned_by_gates,
    ),
    "an angle that is a gate": (
        lambda a, b: torch.view_as_real(
            a * torch.polar(torch.exp(b.sigmoid() * COMPLEX[0].real), b.sigmoid() * COMPLEX[0].imag)
        ),
        turned_by_gates,
    ),
    "complex plus real": (
        lambda a, b: torch.view_as_real(torch.complex(a, b) + a.flip(1)),
        lambda a, b: torch.stack([a + a.flip(1), b], -1),
    ),
    "real minus complex": (
        lambda a, b: torch.view_as_real(a.flip(1).sub(torch.complex(a, b), alpha=2)),
        lambda a, b: torch.stack([a.flip(1) - 2 * a, -2 * b], -1),
    ),
    "real plus 0j": (
        lambda a, b: torch.view_as_real((a + 0j) * (2 - 1j)),
        lambda a, b: torch.stack([2 * a, -a], -1),
    ),
    "complex and real, joined": (
        lambda a, b: torch.view_as_real(torch.cat([torch.complex(a, b), b], 1)),
        lambda a, b: torch.stack([torch.cat([a, b], 1), torch.cat([b, torch.zeros_like(b)], 1)], -1),
    ),
    "complex, filled": (
        lambda a, b: torch.view_as_real(F.pad(torch.complex(a, b).masked_fill(FIRST, 2.0), (1, 0), value=3.0)),
        lambda a, b: torch.stack([F.pad(a.masked_fill(FIRST, 2), (1, 0), value=3), F.pad(b * ~FIRST, (1, 0))], -1),
    ),
    "conjugate's imaginary part": (lambda a, b: torch.complex(a, b).mH.imag, lambda a, b: -b.mT),
    "complex norm": (
        lambda a, b: torch.complex(a, b).norm(dim=1),
        lambda a, b: torch.complex(a, b).abs().norm(dim=1),
    ),
    "polar": (
        lambda a, b: torch.view_as_real(torch.polar(a.abs(), ANGLE.expand(a.shape))),
        lambda a, b: torch.stack([a.abs() * ANGLE.cos(), a.abs() * ANGLE.sin()], -1),
    ),
    "vdot": (
        lambda a, b: torch.stack([torch.vdot(one[0], COMPLEX[0].real) for one in a]),
        lambda a, b: a[:, 0] @ COMPLEX[0].real,
    ),
    "complex vdot": (
        lambda a, b: torch.view_as_real(torch.stack([torch.vdot(z, COMPLEX[0]) for z in torch.complex(a, b)[:, 0]])),
        lambda a, b: torch.stack(
            [
                a[:, 0] @ COMPLEX[0].real - (-b[:, 0]) @ COMPLEX[0].imag,
                a[:, 0] @ COMPLEX[0].imag + (-b[:, 0]) @ COMPLEX[0].real,
            ],
            -1,
        ),
    ),
    "addr": (
        lambda a, b: torch.stack(
            [torch.addr(p, q[:, 0], TAPS[0, :, 0], beta=0.5, alpha=3) for p, q in zip(a, b, strict=True)]
        ),
        lambda a, b: 0.5 * a + 3 * (b[:, :, :1] * TAPS[0, :, 0]),
    ),
    "heaviside": (lambda a, b: torch.heaviside(a, a.new_zeros(())) * b, lambda a, b: (a > 0) * b),
}  # fmt: skip


class Between(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.out = nn.Linear(5, 24), nn.Linear(5, 24), nn.LazyLinear(2)
        self.function = function
        self.double()
        with torch.no_grad():
            self(torch.zeros(3, 5, dtype=torch.float64))
            self.out.weight.normal_()

    def forward(self, x):
        a, b = (layer(x).view(-1, 4, 6) for layer in (self.one, self.two))
        return self.out(self.function(a, b).reshape(len(x), -1))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_two_spellings_are_explained_alike(spelling, rule, create_graph):
    x = torch.randn(3, 5, dtype=torch.float64)
    one, two = map(Between, SPELLINGS[spelling])
    with torch.no_grad():
        torch.testing.assert_close(one.eval()(x), two.eval()(x))
    expected = LRP(RULES[rule], start="logit")(two, x, 1)
    assert rule == "z+" or bool((expected != 0).any())
    relevance = LRP(RULES[rule], start="logit", create_graph=create_graph)(one, x, 1)
    torch.testing.assert_close(relevance.detach(), expected, rtol=1e-6, atol=1e-9)


def test_a_log_of_a_sigmoid_is_a_signal():
    """Relevance passes, as it does through the softplus that it is."""
    x = torch.randn(3, 5, dtype=torch.float64)
    one, two = Between(lambda a, b: F.logsigmoid(a)), Between(lambda a, b: -F.softplus(-a))
    torch.testing.assert_close(LRP(Epsilon(1e-12))(one, x, 1), LRP(Epsilon(1e-12))(two, x, 1))


def test_noise_that_is_drawn_is_a_slope():
    """A random leaky ReLU in train mode."""
    model, x = Between(lambda a, b: F.rrelu(a, 0.2, 0.9, training=True)), torch.randn(3, 5, dtype=torch.float64)
    model.one.bias = model.out.bias = None
    torch.manual_seed(7)
    logit = model(x)[:, 1].detach()
    torch.manual_seed(7)
    torch.testing.assert_close(LRP(Epsilon(0.0))(model, x, 1).sum(1), logit)


def test_a_matrix_that_depends_on_the_input_is_refused():
    model = Between(lambda a, b: torch.linalg.solve(a[:, :, :4] + 9 * torch.eye(4), b))
    with pytest.raises(UnexplainableError, match="matrix must not depend"):
        LRP(Epsilon())(model, torch.randn(3, 5, dtype=torch.float64), 1)


def test_what_torch_cannot_differentiate_is_refused_by_name():
    model = Between(lambda a, b: torch.heaviside(torch.relu(a), a.new_zeros(())) * b)
    with pytest.raises(UnexplainableError, match=r"heaviside.*explain by LRP"):
        GuidedBackprop()(model, torch.randn(3, 5, dtype=torch.float64), 1)


def test_quantiles_are_explained_and_refused_with_a_graph():
    model, x = Between(lambda a, b: a.quantile(0.3, dim=1)), torch.randn(3, 5, dtype=torch.float64)
    model.one.bias = model.out.bias = None
    torch.testing.assert_close(LRP(Epsilon(0.0))(model, x, 1).sum(1), model(x)[:, 1].detach())
    with pytest.raises(UnexplainableError, match="quantile"):
        LRP(Epsilon(0.0), create_graph=True)(model, x, 1)
