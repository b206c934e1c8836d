"""Attention whose weights are signals (AttnLRP), against NumPy."""

import numpy as np
import pytest
import torch
from readers import assert_equal
from torch import nn

from rnnx_lightning.explain import LRP, Composite, Epsilon, UnexplainableError

EPSILON = 1e-12
ATTENTION = LRP(Composite(Epsilon(EPSILON), products="half", softmax="signal"))


class Attention(nn.Module):
    """One head that reads (B, T, 3), with a mask of the last step or without."""

    def __init__(self, masked, bias=False):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(3, 4, bias=bias) for _ in range(3))
        self.out = nn.Linear(4, 2, bias=False)
        self.masked = masked
        self.double()

    def forward(self, x):
        scores = self.q(x) @ self.k(x).mT / 2
        if self.masked:
            scores = scores.masked_fill(torch.arange(x.shape[1]) == x.shape[1] - 1, -torch.inf)
        return self.out((scores.softmax(-1) @ self.v(x)).sum(1))


def linear(x, w, r):
    z = x @ w.T
    return x * ((r / (z + EPSILON * np.sign(z))) @ w)


def half(a, b, r):
    """Both factors' shares of a @ b."""
    f = r / (a @ b)
    return 0.5 * a * (f @ b.T), 0.5 * b * (a.T @ f)


def by_hand(model, x, target):
    q, k, v, out = (m.weight.detach().numpy() for m in (model.q, model.k, model.v, model.out))
    Q, K, V = x @ q.T, x @ k.T, x @ v.T
    scores = Q @ K.T / 2
    if model.masked:
        scores[:, -1] = -np.inf
    s = np.exp(scores - scores.max(1, keepdims=True))
    s /= s.sum(1, keepdims=True)
    H = s @ V
    z = H.sum(0) @ out.T
    R = linear(H.sum(0), out, np.where(np.arange(2) == target, z, 0))
    R = H * (R / H.sum(0))
    R_s, R_v = half(s, V, R)
    scores = np.where(s == 0, 0, scores)
    R_scores = scores * (R_s - s * R_s.sum(1, keepdims=True))
    R_scores = np.where(s == 0, 0, R_scores)
    f = R_scores / np.where(Q @ K.T == 0, 1, Q @ K.T)
    R_q, R_k = 0.5 * Q * (f @ K), 0.5 * K * (f.T @ Q)
    return linear(x, q, R_q) + linear(x, k, R_k) + linear(x, v, R_v)


@pytest.mark.parametrize("masked", [False, True])
def test_weights_that_are_signals(masked):
    model, x = Attention(masked), torch.randn(3, 5, 3, dtype=torch.float64)
    expected = torch.tensor(np.array([by_hand(model, example, 1) for example in x.numpy()]))
    assert_equal(ATTENTION(model, x, 1), expected, 1e-6)


def test_a_last_softmax_is_left_out_all_the_same():
    model, x = Attention(False), torch.randn(3, 5, 3, dtype=torch.float64)
    ended = nn.Sequential(model, nn.Softmax(1))
    assert_equal(ATTENTION(ended, x, 1), ATTENTION(model, x, 1), 1e-12)


def test_products_have_to_be_told():
    with pytest.raises(UnexplainableError, match="multiplies two signals"):
        LRP(Composite(Epsilon(), softmax="signal"))(Attention(False), torch.randn(2, 5, 3).double(), 1)


def test_against_lxt():
    """The packages agree on softmax and products; masks and epsilons apart."""
    functional = pytest.importorskip("lxt.explicit.functional", reason="lxt is not installed")
    model, x = Attention(False), torch.randn(3, 5, 3, dtype=torch.float64, requires_grad=True)
    eps = EPSILON

    def read(weight):
        return functional.linear_epsilon(x, weight, None, eps)

    scores = functional.matmul(read(model.q.weight / 2), read(model.k.weight).mT, False, eps)
    hidden = functional.matmul(functional.softmax(scores, -1), read(model.v.weight), False, eps)
    mean = functional.mean(hidden, 1, False, eps)
    logit = functional.linear_epsilon(mean, model.out.weight, None, eps)[:, 1]
    (expected,) = torch.autograd.grad(logit, x, logit.detach() * x.shape[1])
    assert_equal(ATTENTION(model, x.detach(), 1), expected, 1e-6)
