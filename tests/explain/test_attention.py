"""Attention whose weights are signals (AttnLRP), against NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from readers import assert_equal
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, UnexplainableError, ZPlus

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


class Mixed(nn.Module):
    """Softmaxes that are mixed before they weigh values (1, 5, 4); or mixed ones that are given."""

    def __init__(self, mix, given=None):
        super().__init__()
        torch.manual_seed(0)
        self.score, self.value = nn.Linear(4, 6), nn.Linear(4, 3, bias=False)
        self.talk, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)
        self.kernels, self.out = nn.Parameter(torch.randn(6, 3 * 3)), nn.Linear(3, 2)
        self.mix, self.given = mix, given
        self.double()

    def weights(self, x):
        return self.mix(self, self.score(x).softmax(1))

    def forward(self, x):
        weights = self.weights(x) if self.given is None else self.given
        return self.out((weights @ self.value(x).relu()).sum(1))


MIXED = {
    "talking heads": lambda m, s: m.talk(s).mT,
    "by a convolution": lambda m, s: torch.conv1d(s.mT, m.talk.weight[..., None], m.talk.bias),
    "normalised": lambda m, s: m.norm(m.talk(s)).mT,
    "twice, cut": lambda m, s: m.talk(m.talk(s).relu()[..., :6]).mT,
    "kernels that are chosen": lambda m, s: (s.mean(1) @ m.kernels).view(-1, 3, 3).repeat(1, 1, 2)[..., :5],
}


@pytest.mark.parametrize("rule", [Epsilon(EPSILON), ZPlus(), AlphaBeta(2, 1), Gamma(0.25)])
@pytest.mark.parametrize("name", MIXED)
def test_mixed_attention_weights_are_constants(name, rule):
    x = torch.randn(1, 5, 4, dtype=torch.float64, generator=torch.manual_seed(1))
    model = Mixed(MIXED[name])
    given = Mixed(None, model.weights(x).detach())
    explain = LRP(Composite(rule), start="logit")
    assert_equal(explain(model, x, 1), explain(given, x, 1))


SEEN = torch.ones(5, 5).tril().bool()
CAUSAL = {
    "masked_fill": lambda q, k, v: (q @ k.mT / 2).masked_fill(~SEEN, -torch.inf).softmax(-1) @ v,
    "added": lambda q, k, v: (q @ k.mT / 2 + torch.zeros(5, 5).masked_fill(~SEEN, -torch.inf)).softmax(-1) @ v,
    "where": lambda q, k, v: torch.where(SEEN, q @ k.mT / 2, -torch.inf).softmax(-1) @ v,
    "is_causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "a mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=SEEN),
    "numbers": lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, attn_mask=torch.zeros(5, 5).double().masked_fill(~SEEN, -torch.inf)
    ),
}


@pytest.mark.parametrize("way", CAUSAL)
@pytest.mark.parametrize("bias", ["share", "spread", "ignore"])
@pytest.mark.parametrize("rule", [Epsilon(EPSILON), ZPlus(), AlphaBeta(2, 1), Gamma(0.25)])
def test_causal_masks_that_are_added(rule, bias, way):
    class Causal(Attention):
        def __init__(self, way):
            super().__init__(False, bias=True)
            self.way = way

        def forward(self, x):
            return self.out(CAUSAL[self.way](self.q(x), self.k(x), self.v(x)).sum(1))

    x = torch.randn(2, 5, 3, dtype=torch.float64)
    rules = Composite(rule, bias=bias, products="half", softmax="signal")
    for graph in (False, True):
        method = LRP(rules, start="logit", create_graph=graph)
        ours, expected = method(Causal(way), x, 1), method(Causal("masked_fill"), x, 1)
        assert bool(expected.isfinite().all())
        torch.testing.assert_close(ours, expected)


def test_mixed_attention_weights_are_no_signals():
    model = Mixed(MIXED["talking heads"])
    with pytest.raises(UnexplainableError, match="softmax"):
        LRP(Epsilon())(
            nn.Sequential(model.score, nn.Softmax(1), model.talk, nn.Flatten()), torch.randn(2, 5, 4).double(), 1
        )


class Chosen(nn.Module):
    """Attention by a way of running it that the network chooses."""

    def __init__(self, way, **how):
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.out, self.way, self.how = nn.Linear(4, 24), nn.Linear(8, 2), way, how
        self.double()

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (2, 12)).transpose(1, 2).chunk(3, -1)
        with sdpa_kernel(self.way):
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v.relu(), **self.how)
        return self.out(y.transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize("rule", [Epsilon(EPSILON), ZPlus()])
@pytest.mark.parametrize(
    "how",
    [{}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": torch.linspace(-2, 2, 25).double().view(5, 5).sin()}],
)
def test_fused_attention_is_taken_apart(how, rule):
    x, explain = torch.randn(3, 5, 4).double(), LRP(Composite(rule), start="logit")
    fused, plain = (Chosen(way, **how) for way in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH))
    assert_equal(explain(fused, x, 1), explain(plain, x, 1))


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


class OfGates(nn.Module):
    """Attention whose values are those of a gate, such as the output of a sigmoid."""

    def __init__(self, gate=torch.sigmoid, transposed=False):
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.transposed = gate, transposed
        self.weights, self.values, self.out = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 2, bias=False)
        self.double()

    def forward(self, x):
        weights = self.weights(x).softmax(-1)
        values = self.gate(self.values(x))
        return self.out((values.mT @ weights.mT).mT if self.transposed else weights @ values)[:, -1]


@pytest.mark.parametrize("transposed", [False, True])
def test_attention_weighs_gates_as_it_weighs_signals(transposed):
    model, x = OfGates(transposed=transposed), torch.randn(2, 3, 4, dtype=torch.float64)
    relevance = LRP(Composite(Epsilon(0)))(model, x, 1)
    with torch.no_grad():
        weights, z = model.weights(x).softmax(-1), model.values(x)
        at_values = weights[:, -1, :, None] * z.sigmoid() * model.out.weight[1]
        expected = (at_values / z) @ model.values.weight * x
    torch.testing.assert_close(relevance, expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_attention_over_what_has_no_rule_as_a_signal_is_refused(transposed):
    model, x = OfGates(torch.exp, transposed), torch.randn(2, 3, 4, dtype=torch.float64)
    with pytest.raises(UnexplainableError):
        LRP(Composite(Epsilon(0)))(model, x, 1)
    LRP(Composite(Epsilon(0), functions="identity"))(model, x, 1)


class Recurrent(nn.Module):
    """A memory (4 places) that attends to itself, as in SA-ConvLSTM; it begins with zeros, or with nothing."""

    def __init__(self, start, transposed):
        super().__init__()
        torch.manual_seed(0)
        self.start, self.transposed = start, transposed
        self.read, self.query = nn.Linear(3, 8), nn.Linear(2, 2)
        self.value, self.out = nn.Linear(2, 2), nn.Linear(8, 2)
        self.double()

    def forward(self, x):
        state = x.new_zeros(len(x), 4, 2)
        for t, step in enumerate(x.unbind(1)):
            new = self.read(step).view(-1, 4, 2)
            weights, values = torch.softmax(self.query(new) @ new.mT, -1), self.value(state)
            if t == 0 and not self.start:
                attended = self.value.bias
            else:
                attended = (values.mT @ weights.mT).mT if self.transposed else weights @ values
            state = torch.tanh(new) + 0.5 * attended
        return self.out(state.flatten(1))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rule", [Epsilon(0.01), ZPlus(), AlphaBeta(2, 1)], ids=lambda rule: type(rule).__name__)
def test_attention_to_a_start_state_is_a_constant(rule, transposed):
    x = torch.randn(3, 4, 3, dtype=torch.float64)
    method = LRP(Composite(rule, products="half"), start="logit")
    started, expected = (method(Recurrent(start, transposed), x, 0) for start in (True, False))
    torch.testing.assert_close(started, expected)


WEIGHTS = {
    "exp": lambda z: z.exp() / z.exp().sum(-1, keepdim=True),
    "without overflow": lambda z: (lambda e: e / e.sum(-1, keepdim=True))((z - z.amax(-1, keepdim=True)).exp()),
    "in place": lambda z: (lambda e: e.div_(e.sum(-1, keepdim=True)))(z.exp()),
    "normalised": lambda z: F.normalize(z.exp(), p=1, dim=-1),
    "exp of log-softmax": lambda z: z.log_softmax(-1).exp(),
    "exp of that, written out": lambda z: (z - z.logsumexp(-1, keepdim=True)).exp(),
}


class Weighing(nn.Module):
    """Attention of three time steps to each other."""

    def __init__(self, softmax):
        super().__init__()
        torch.manual_seed(0)
        self.softmax, self.query, self.key = softmax, nn.Linear(4, 5), nn.Linear(4, 5)
        self.value, self.out = nn.Linear(4, 5), nn.Linear(5, 2)
        self.double()

    def forward(self, x):
        weights = self.softmax(self.query(x) @ self.key(x).mT)
        return self.out((weights @ self.value(x)).mean(1))


@pytest.mark.parametrize("softmax", ["constant", "signal"])
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("spelling", WEIGHTS)
def test_a_softmax_written_out_is_a_softmax(spelling, create_graph, softmax):
    composite = Composite(Epsilon(1e-6), products="half", softmax=softmax)
    method = LRP(composite, create_graph=create_graph)
    x = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_equal(method(Weighing(WEIGHTS[spelling]), x, 1), method(Weighing(lambda z: z.softmax(-1)), x, 1))
