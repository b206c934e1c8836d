"""Readers of text and speech as public code has them."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import Parameter

from .network import BATCH, network, real, tokens


@network(
    "BiDAF",
    lambda: {"c": torch.randint(1, 9, (BATCH, 6)), "q": torch.randint(1, 9, (BATCH, 4))},
    "highway layers, attention both ways, products of vectors",
    target=lambda out: out[0][:, 2],
    options={"products": "half"},
)
class BiDAF(nn.Module):
    def __init__(self):
        super().__init__()
        d = 4
        self.emb = nn.Embedding(9, d)
        self.hw = nn.ModuleList([nn.Linear(d, d) for _ in range(2)])
        self.gt = nn.ModuleList([nn.Linear(d, d) for _ in range(2)])
        self.ctx = nn.LSTM(d, 3, batch_first=True, bidirectional=True)
        self.wc, self.wq, self.wcq = nn.Linear(6, 1), nn.Linear(6, 1), nn.Linear(6, 1)
        self.m = nn.LSTM(24, 3, batch_first=True, bidirectional=True, num_layers=2, dropout=0.2)
        self.p1g, self.p1m, self.p2g, self.p2m = (
            nn.Linear(24, 1),
            nn.Linear(6, 1),
            nn.Linear(24, 1),
            nn.Linear(6, 1),
        )
        self.o = nn.LSTM(6, 3, batch_first=True, bidirectional=True)

    def highway(self, x):
        for layer, gate in zip(self.hw, self.gt, strict=True):
            h = F.relu(layer(x))
            t = torch.sigmoid(gate(x))
            x = t * h + (1 - t) * x
        return x

    def att(self, c, q):
        cq = []
        for i in range(q.size(1)):
            qi = q.select(1, i).unsqueeze(1)
            cq.append(self.wcq(c * qi).squeeze(-1))
        cq = torch.stack(cq, dim=-1)
        s = self.wc(c).expand(-1, -1, q.size(1)) + self.wq(q).permute(0, 2, 1).expand(-1, c.size(1), -1) + cq
        a = F.softmax(s, dim=2)
        c2q = torch.bmm(a, q)
        b = F.softmax(torch.max(s, dim=2)[0], dim=1).unsqueeze(1)
        q2c = torch.bmm(b, c).squeeze(1).unsqueeze(1).expand(-1, c.size(1), -1)
        return torch.cat([c, c2q, c * c2q, c * q2c], dim=-1)

    def forward(self, c, q):
        c, q = self.ctx(self.highway(self.emb(c)))[0], self.ctx(self.highway(self.emb(q)))[0]
        g = self.att(c, q)
        m = self.m(g)[0]
        p1 = (self.p1g(g) + self.p1m(m)).squeeze()
        m2 = self.o(m)[0]
        p2 = (self.p2g(g) + self.p2m(m2)).squeeze()
        return p1.view(len(c), -1), p2.view(len(c), -1)


@network(
    "Transformer-XL",
    real(6, 8),
    "relative shift by view, memory beside the input",
    target=(5, 1),
    arguments=lambda: {"mems": torch.randn(BATCH, 4, 8)},
    constant=True,
)
class TXL(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24, bias=False)
        self.r = nn.Linear(8, 8, bias=False)
        self.u, self.v = Parameter(torch.randn(2, 4)), Parameter(torch.randn(2, 4))
        self.o = nn.Linear(8, 8, bias=False)
        self.ln = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 3)

    def _rel_shift(self, x):
        zero = torch.zeros((x.size(0), 1, *x.size()[2:]), dtype=x.dtype)
        xp = torch.cat([zero, x], dim=1)
        xp = xp.view(x.size(1) + 1, x.size(0), *x.size()[2:])
        return xp[1:].view_as(x)

    def forward(self, x, mems):
        w = x.transpose(0, 1).contiguous()
        m = mems.transpose(0, 1)
        cat = torch.cat([m, w], 0)
        ql, kl, b = 6, 10, w.size(1)
        pos = torch.arange(kl - 1, -1, -1.0).to(x.dtype)
        inv = 1 / (10000 ** (torch.arange(0.0, 8.0, 2.0) / 8)).to(x.dtype)
        s = torch.ger(pos, inv)
        r = torch.cat([s.sin(), s.cos()], -1)
        q, k, v = torch.chunk(self.qkv(cat), 3, dim=-1)
        q = q[-ql:]
        q, k, v = q.view(ql, b, 2, 4), k.view(kl, b, 2, 4), v.view(kl, b, 2, 4)
        rk = self.r(r).view(kl, 2, 4)
        AC = torch.einsum("ibnd,jbnd->ijbn", (q + self.u, k))
        BD = self._rel_shift(torch.einsum("ibnd,jnd->ijbn", (q + self.v, rk)))
        a = AC + BD
        a.mul_(0.5)
        mask = torch.triu(torch.ones(ql, kl), diagonal=1 + 4).bool()[:, :, None]
        a = a.float().to(x.dtype).masked_fill(mask[:, :, :, None], -float("inf")).type_as(a)
        p = F.softmax(a, dim=1)
        vec = torch.einsum("ijbn,jbnd->ibnd", (p, v))
        out = self.ln(w + self.o(vec.contiguous().view(ql, b, 8)))
        return self.fc(out).transpose(0, 1)


@network(
    "GPT-2",
    tokens(9, 6),
    "addmm layers, GELU written out by tanh, torch.where mask, tied weights",
    target=(5, 2),
    second_way=False,
)
class GPT2(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(9, 8), nn.Embedding(10, 8)
        self.cw, self.cb = Parameter(torch.randn(8, 24) * 0.4), Parameter(torch.zeros(24))
        self.pw, self.pb = Parameter(torch.randn(8, 8) * 0.4), Parameter(torch.zeros(8))
        self.ln = nn.LayerNorm(8)
        self.register_buffer(
            "bias", torch.tril(torch.ones((10, 10), dtype=torch.bool)).view(1, 1, 10, 10), persistent=False
        )

    def conv1d(self, x, w, b):
        return torch.addmm(b, x.view(-1, x.size(-1)), w).view((*x.size()[:-1], w.shape[1]))

    def new_gelu(self, x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))

    def forward(self, ids):
        h = self.wte(ids) + self.wpe(torch.arange(ids.shape[-1]).unsqueeze(0))
        q, k, v = self.conv1d(self.ln(h), self.cw, self.cb).split(8, dim=2)
        q, k, v = (t.view((*t.size()[:-1], 2, 4)).permute(0, 2, 1, 3) for t in (q, k, v))
        w = torch.matmul(q, k.transpose(-1, -2))
        w = w / torch.full([], 2.0, dtype=w.dtype)
        cm = self.bias[:, :, :6, :6]
        w = torch.where(cm, w.to(w.dtype), torch.full([], torch.finfo(w.dtype).min, dtype=w.dtype))
        a = torch.matmul(F.softmax(w, -1), v).permute(0, 2, 1, 3).contiguous()
        h = h + self.conv1d(a.view((*a.size()[:-2], 8)), self.pw, self.pb)
        return F.linear(self.new_gelu(self.ln(h)), self.wte.weight)


@network("Reformer", real(8, 8), "hashing by argmax, sort, chunks, exp(x - logsumexp), two streams", target=1)
class Reformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qk, self.v, self.o = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 8)
        self.ff = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.fc = nn.Linear(16, 3)
        self.register_buffer("rot", torch.randn(8, 2))

    def selected(self, v, i):
        return v.gather(1, i[:, :, None].expand(-1, -1, v.shape[-1]))

    def with_chunk_before(self, t):
        return torch.cat([t, torch.cat([t[:, -1:, ...], t[:, :-1, ...]], dim=1)], dim=2)

    def att(self, x):
        B, T, C = x.shape
        qk, v = self.qk(x), self.v(x)
        r = qk @ self.rot
        r = torch.cat([r, -r], -1)
        b = torch.argmax(r, -1)
        ticker = torch.arange(T).unsqueeze(0).expand_as(b)
        sticker = T * b + ticker
        _, idx = sticker.sort(dim=-1)
        _, undo = idx.sort(dim=-1)
        sqk, sv = self.selected(qk, idx), self.selected(v, idx)
        bq = sqk.reshape(B, 4, -1, C)
        bk = F.normalize(bq, p=2, dim=-1).type_as(bq)
        bv = sv.reshape(B, 4, -1, C)
        bk, bv = self.with_chunk_before(bk), self.with_chunk_before(bv)
        d = torch.einsum("bhie,bhje->bhij", bq, bk) * C**-0.5
        lse = torch.logsumexp(d, dim=-1, keepdim=True)
        d = torch.exp(d - lse).type_as(d)
        return self.o(self.selected(torch.einsum("buij,buje->buie", d, bv).reshape(B, -1, C), undo))

    def forward(self, x):
        x1, x2 = x, x
        y1 = x1 + self.att(x2)
        y2 = x2 + self.ff(y1)
        return self.fc(torch.cat([y1, y2], -1).mean(1))


@network(
    "x-vector", real(4, 12), "dilated Conv1d, mean and standard deviation over time", target=1, second_way=False
)
class XVector(nn.Module):
    def __init__(self):
        super().__init__()
        self.t = nn.Sequential(
            nn.Conv1d(4, 6, 5),
            nn.ReLU(),
            nn.BatchNorm1d(6),
            nn.Conv1d(6, 6, 3, dilation=2),
            nn.ReLU(),
            nn.BatchNorm1d(6),
        )
        self.s = nn.Linear(12, 9)
        self.fc = nn.Linear(9, 3)

    def forward(self, x):
        x = self.t(x)
        return self.fc(F.relu(self.s(torch.cat((torch.mean(x, dim=2), torch.std(x, dim=2)), dim=1))))


@network(
    "ECAPA-TDNN",
    real(6, 12),
    "Res2Net, squeeze-and-excite, weighted mean and deviation",
    target=1,
    second_way=False,
)
class ECAPA(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv1d(6, 8, 3, padding=1)
        self.r = nn.ModuleList([nn.Conv1d(2, 2, 3, padding=1) for _ in range(3)])
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool1d(1), nn.Conv1d(8, 4, 1), nn.ReLU(), nn.Conv1d(4, 8, 1), nn.Sigmoid()
        )
        self.bn = nn.BatchNorm1d(8)
        self.att = nn.Sequential(
            nn.Conv1d(24, 4, 1), nn.ReLU(), nn.BatchNorm1d(4), nn.Tanh(), nn.Conv1d(4, 8, 1), nn.Softmax(dim=2)
        )
        self.b2 = nn.BatchNorm1d(16)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = self.bn(F.relu(self.c(x)))
        spx = torch.split(x, 2, 1)
        sp, out = 0, []
        for i in range(3):
            sp = F.relu(self.r[i](sp + spx[i]))
            out.append(sp)
        out = torch.cat([*out, spx[3]], 1)
        x = out * self.se(out) + x
        t = x.size(-1)
        g = torch.cat(
            (
                x,
                torch.mean(x, dim=2, keepdim=True).repeat(1, 1, t),
                torch.sqrt(torch.var(x, dim=2, keepdim=True).clamp(min=1e-4)).repeat(1, 1, t),
            ),
            dim=1,
        )
        w = self.att(g)
        mu = torch.sum(x * w, dim=2)
        sg = torch.sqrt((torch.sum((x**2) * w, dim=2) - mu**2).clamp(min=1e-4))
        return self.fc(self.b2(torch.cat((mu, sg), 1)))


@network(
    "GhostNet",
    real(3, 6, 6),
    "cheap features by depthwise Conv2d, hard sigmoid written out",
    target=1,
    second_way=False,
)
class Ghost(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.c = nn.Sequential(
            nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        )
        self.fc = nn.Linear(7, 2)
        self.r, self.e = nn.Conv2d(7, 3, 1), nn.Conv2d(3, 7, 1)

    def forward(self, x):
        a = self.p(x)
        o = torch.cat([a, self.c(a)], dim=1)[:, :7]
        o = o * F.relu6(self.e(F.relu(self.r(F.adaptive_avg_pool2d(o, 1)))) + 3.0) / 6.0
        return self.fc(o.flatten(2).mean(-1))


@network("temporal shift", real(4, 8, 3, 3), "channels shifted along time by writing slices", target=1)
class TSM(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def shift(self, x):
        nt, c, h, w = x.size()
        x = x.view(nt // 4, 4, c, h, w)
        out = torch.zeros_like(x)
        f = 2
        out[:, :-1, :f] = x[:, 1:, :f]
        out[:, 1:, f : 2 * f] = x[:, :-1, f : 2 * f]
        out[:, :, 2 * f :] = x[:, :, 2 * f :]
        return out.view(nt, c, h, w)

    def forward(self, x):
        x = x.view((-1, *x.size()[2:]))
        y = F.relu(self.c1(self.shift(x)), inplace=True)
        y = self.c2(y)
        y += x
        y = F.relu_(y)
        y = self.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return y.view(-1, 4, 3).mean(dim=1)
