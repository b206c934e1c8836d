"""Recurrent networks of the last years: exponential gates, matrix memories, decays."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import Parameter

from .network import BATCH, network, real


@network("sLSTM", real(6, 4), "exponential gates with a stabiliser, a normaliser state", target=1)
class SLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.R = nn.Linear(4, 24), nn.Linear(6, 24, bias=False)
        self.gn = nn.GroupNorm(2, 6)
        self.up, self.gate, self.fc = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        B = x.size(0)
        h = torch.zeros(B, 6)
        c = torch.zeros(B, 6)
        n = torch.ones(B, 6)
        m = torch.zeros(B, 6)
        for t in range(x.size(1)):
            z, i, f, o = (self.W(x[:, t]) + self.R(h)).chunk(4, dim=1)
            z = torch.tanh(z)
            o = torch.sigmoid(o)
            logf = F.logsigmoid(f)
            m_t = torch.max(logf + m, i)
            i_t = torch.exp(i - m_t)
            f_t = torch.exp(logf + m - m_t)
            c = f_t * c + i_t * z
            n = f_t * n + i_t
            h = o * (c / n)
            m = m_t
        y = self.gn(h)
        return self.fc(F.gelu(self.gate(y)) * torch.sigmoid(self.up(y)))


@network(
    "mLSTM", real(6, 4), "matrix memory, divided by the larger of two", target=1, options={"products": "half"}
)
class MLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 6) for _ in range(3))
        self.i, self.f, self.o = nn.Linear(4, 1), nn.Linear(4, 1), nn.Linear(4, 6)
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        B = len(x)
        C = torch.zeros(B, 6, 6)
        n = torch.zeros(B, 6)
        m = torch.zeros(B, 1)
        for t in range(x.size(1)):
            xt = x[:, t]
            q, k, v = self.q(xt), self.k(xt) / math.sqrt(6), self.v(xt)
            it, ft = self.i(xt), self.f(xt)
            logf = -F.softplus(-ft)
            m_t = torch.max(logf + m, it)
            i = torch.exp(it - m_t)
            f = torch.exp(logf + m - m_t)
            C = f.unsqueeze(-1) * C + i.unsqueeze(-1) * torch.einsum("bd,be->bde", v, k)
            n = f * n + i * k
            div = torch.max(torch.abs(torch.einsum("bn,bn->b", n, q)), torch.exp(-m_t[:, 0])).unsqueeze(-1)
            h = torch.sigmoid(self.o(xt)) * (torch.einsum("bdn,bn->bd", C, q) / div)
            m = m_t
        return self.fc(h)


@network("RWKV time mixing", real(6, 4), "weighted mean of values by running exponents", target=1)
class RWKV(nn.Module):
    def __init__(self):
        super().__init__()
        self.mk, self.mv, self.mr = (Parameter(torch.rand(1, 1, 4)) for _ in range(3))
        self.td, self.tf = Parameter(torch.randn(4)), Parameter(torch.randn(4))
        self.key, self.value, self.receptance, self.output = (nn.Linear(4, 4, bias=False) for _ in range(4))
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        B, T, C = x.size()
        xx = self.shift(x)
        k = self.key(x * self.mk + xx * (1 - self.mk))
        v = self.value(x * self.mv + xx * (1 - self.mv))
        r = torch.sigmoid(self.receptance(x * self.mr + xx * (1 - self.mr)))
        w, u = -torch.exp(self.td), self.tf
        aa = torch.zeros(B, C)
        bb = torch.zeros(B, C)
        pp = torch.full((B, C), -1e38)
        out = []
        for t in range(T):
            kk, vv = k[:, t], v[:, t]
            ww = u + kk
            qq = torch.maximum(pp, ww)
            e1 = torch.exp(pp - qq)
            e2 = torch.exp(ww - qq)
            out.append((e1 * aa + e2 * vv) / (e1 * bb + e2))
            ww = w + pp
            qq = torch.maximum(ww, kk)
            e1 = torch.exp(ww - qq)
            e2 = torch.exp(kk - qq)
            aa = e1 * aa + e2 * vv
            bb = e1 * bb + e2
            pp = qq
        return self.fc(self.output(r * torch.stack(out, 1))[:, -1])


@network(
    "RetNet", real(6, 8), "decay mask in place of the softmax, GroupNorm", target=1, options={"products": "half"}
)
class RetNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.g, self.o = (nn.Linear(8, 8, bias=False) for _ in range(5))
        self.norm = nn.LayerNorm(4, elementwise_affine=False)
        self.fc = nn.Linear(8, 2)
        self.register_buffer("decay", torch.log(1 - 2 ** (-5 - torch.arange(2, dtype=torch.float))))

    def forward(self, x):
        B, T, _ = x.shape
        idx = torch.arange(T).to(self.decay)
        mask = torch.tril(torch.ones(T, T))
        mask = torch.masked_fill(idx[:, None] - idx[None, :], ~mask.bool(), float("inf"))
        mask = torch.exp(mask * self.decay[:, None, None])
        mask = torch.nan_to_num(mask)
        mask = mask / mask.sum(dim=-1, keepdim=True).sqrt()
        q, k, v = (z.view(B, T, 2, 4).transpose(1, 2) for z in (self.q(x), self.k(x) * 4**-0.5, self.v(x)))
        qk = q @ k.transpose(-1, -2) * mask
        qk = qk / qk.detach().abs().sum(dim=-1, keepdim=True).clamp(min=1)
        o = torch.matmul(qk, v).transpose(1, 2)
        o = self.norm(o).reshape(B, T, 8)
        return self.fc(self.o(F.silu(self.g(x)) * o)[:, -1])


@network(
    "gated delta net",
    real(6, 6),
    "memory overwritten by the delta rule, normalised keys",
    target=1,
    options={"products": "half"},
)
class DeltaNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 6, bias=False) for _ in range(3))
        self.b, self.a = nn.Linear(6, 1), nn.Linear(6, 1)
        self.A, self.dt = Parameter(torch.rand(1)), Parameter(torch.rand(1))
        self.conv = nn.Conv1d(6, 6, 3, groups=6, padding=2)
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        B, T, _ = x.shape
        q = F.silu(self.conv(self.q(x).transpose(1, 2))[..., :T]).transpose(1, 2)
        k, v = self.k(x), F.silu(self.v(x))
        q, k = F.normalize(q, dim=-1), F.normalize(k, p=2, dim=-1)
        beta = self.b(x).sigmoid()
        g = -self.A.exp() * F.softplus(self.a(x) + self.dt)
        S = torch.zeros(B, 6, 6)
        outs = []
        for t in range(T):
            S = S * g[:, t].exp().unsqueeze(-1)
            kt, vt = k[:, t], v[:, t]
            vt = beta[:, t] * (vt - (S * kt.unsqueeze(-1)).sum(-2))
            S = S + kt.unsqueeze(-1) * vt.unsqueeze(-2)
            outs.append((S * q[:, t].unsqueeze(-1)).sum(-2))
        return self.fc(torch.stack(outs, 1)[:, -1])


@network("PredRNN", real(4, 1, 4, 4), "two memories, of time and of space, LayerNorm over gates", target=1)
class PredRNN(nn.Module):
    def __init__(self):
        super().__init__()
        f = 4
        self.f = f
        self._forget_bias = 1.0
        self.conv_x, self.conv_h, self.conv_m, self.conv_o, self.conv_last = (
            nn.Conv2d(1, f * 7, 3, 1, 1, bias=False),
            nn.Conv2d(f, f * 4, 3, 1, 1, bias=False),
            nn.Conv2d(f, f * 3, 3, 1, 1, bias=False),
            nn.Conv2d(f * 2, f, 3, 1, 1, bias=False),
            nn.Conv2d(f * 2, f, 1, bias=False),
        )
        self.ln = nn.Sequential(nn.LayerNorm([f * 7, 4, 4]))
        self.fc = nn.Linear(f, 3)

    def step(self, x, h, c, m):
        i_x, f_x, g_x, i2, f2, g2, o_x = torch.split(self.ln(self.conv_x(x)), self.f, dim=1)
        i_h, f_h, g_h, o_h = torch.split(self.conv_h(h), self.f, dim=1)
        i_m, f_m, g_m = torch.split(self.conv_m(m), self.f, dim=1)
        i, fo, g = torch.sigmoid(i_x + i_h), torch.sigmoid(f_x + f_h + self._forget_bias), torch.tanh(g_x + g_h)
        c = fo * c + i * g
        i, fo, g = torch.sigmoid(i2 + i_m), torch.sigmoid(f2 + f_m + self._forget_bias), torch.tanh(g2 + g_m)
        m = fo * m + i * g
        mem = torch.cat((c, m), 1)
        o = torch.sigmoid(o_x + o_h + self.conv_o(mem))
        return o * torch.tanh(self.conv_last(mem)), c, m

    def forward(self, frames):
        B = frames.shape[0]
        h = torch.zeros([B, self.f, 4, 4])
        c = torch.zeros_like(h)
        m = torch.zeros_like(h)
        for t in range(frames.shape[1]):
            h, c, m = self.step(frames[:, t], h, c, m)
        return self.fc(h.mean([2, 3]))


@network(
    "time-aware LSTM",
    lambda: (real(6, 3)(), torch.rand(BATCH, 6) + 0.1),
    "short-term memory discounted by elapsed time",
    target=1,
)
class TLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.W_all, self.U_all, self.W_d = nn.Linear(5, 20), nn.Linear(3, 20), nn.Linear(5, 5)
        self.fc = nn.Linear(5, 2)

    def forward(self, x, ts):
        b, s, _ = x.size()
        h = torch.zeros(b, 5, requires_grad=False)
        c = torch.zeros(b, 5, requires_grad=False)
        outs = []
        for k in range(s):
            cs1 = torch.tanh(self.W_d(c))
            cs2 = cs1 * (1 / torch.log(math.e + ts[:, k : k + 1])).expand_as(cs1)
            cadj = c - cs1 + cs2
            f, i, o, ct = torch.chunk(self.W_all(h) + self.U_all(x[:, k]), 4, 1)
            c = torch.sigmoid(f) * cadj + torch.sigmoid(i) * torch.tanh(ct)
            h = torch.sigmoid(o) * torch.tanh(c)
            outs.append(h)
        return self.fc(torch.stack(outs, 1)[:, -1])
