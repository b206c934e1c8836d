"""Forecasters of the last years, with their normalisation and their decompositions."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real


class SeriesDecomp(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.k = k
        self.avg = nn.AvgPool1d(k, stride=1, padding=0)

    def forward(self, x):
        f = x[:, 0:1, :].repeat(1, (self.k - 1) // 2, 1)
        e = x[:, -1:, :].repeat(1, (self.k - 1) // 2, 1)
        m = self.avg(torch.cat([f, x, e], dim=1).permute(0, 2, 1)).permute(0, 2, 1)
        return x - m, m


@network(
    "iTransformer", real(8, 4), "deviation taken off in place, variables as tokens, put back on", target=(1, 2)
)
class ITransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.1)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.c1, self.c2 = nn.Conv1d(8, 16, 1), nn.Conv1d(16, 8, 1)
        self.n1, self.n2, self.n3 = (nn.LayerNorm(8) for _ in range(3))
        self.projector = nn.Linear(8, 3)

    def forward(self, x_enc):
        means = x_enc.mean(1, keepdim=True).detach()
        x_enc = x_enc - means
        stdev = torch.sqrt(torch.var(x_enc, dim=1, keepdim=True, unbiased=False) + 1e-5)
        x_enc /= stdev
        _, _, N = x_enc.shape
        e = self.drop(self.emb(x_enc.permute(0, 2, 1)))
        B, L, _ = e.shape
        H = 2
        q, k, v = self.q(e).view(B, L, H, -1), self.k(e).view(B, L, H, -1), self.v(e).view(B, L, H, -1)
        s = torch.einsum("blhe,bshe->bhls", q, k)
        A = torch.softmax(1 / math.sqrt(4) * s, dim=-1)
        V = torch.einsum("bhls,bshd->blhd", A, v).contiguous().view(B, L, -1)
        x = self.n1(e + self.o(V))
        y = x
        y = F.gelu(self.c1(y.transpose(-1, 1)))
        y = self.c2(y).transpose(-1, 1)
        e = self.n3(self.n2(x + y))
        d = self.projector(e).permute(0, 2, 1)[:, :, :N]
        d = d * (stdev[:, 0, :].unsqueeze(1).repeat(1, 3, 1))
        return d + (means[:, 0, :].unsqueeze(1).repeat(1, 3, 1))


@network("NLinear", real(8, 3), "the last value, detached, taken off and put back on", target=(1, 2))
class NLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.Linear = nn.Linear(8, 4)

    def forward(self, x):
        seq_last = x[:, -1:, :].detach()
        x = x - seq_last
        x = self.Linear(x.permute(0, 2, 1)).permute(0, 2, 1)
        return x + seq_last


class MyLN(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layernorm = nn.LayerNorm(c)

    def forward(self, x):
        xh = self.layernorm(x)
        bias = torch.mean(xh, dim=1).unsqueeze(1).repeat(1, x.shape[1], 1)
        return xh - bias


class AutoCorr(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.h = h

    def agg(self, values, corr):
        b, h, c, L = values.shape
        init = torch.arange(L).unsqueeze(0).unsqueeze(0).unsqueeze(0).repeat(b, h, c, 1)
        top_k = int(1 * math.log(L))
        mean = torch.mean(torch.mean(corr, dim=1), dim=1)
        w, delay = torch.topk(mean, top_k, dim=-1)
        tmp = torch.softmax(w, dim=-1)
        tv = values.repeat(1, 1, 1, 2)
        agg = torch.zeros_like(values).float().to(values.dtype)
        for i in range(top_k):
            td = init + delay[:, i].unsqueeze(1).unsqueeze(1).unsqueeze(1).repeat(1, h, c, L)
            pat = torch.gather(tv, dim=-1, index=td)
            agg = agg + pat * (tmp[:, i].unsqueeze(1).unsqueeze(1).unsqueeze(1).repeat(1, h, c, L))
        return agg

    def forward(self, q, k, v):
        B, L, _ = q.shape
        S = k.shape[1]
        H = self.h
        q, k, v = self.q(q).view(B, L, H, -1), self.k(k).view(B, S, H, -1), self.v(v).view(B, S, H, -1)
        if L > S:
            z = torch.zeros_like(q[:, : (L - S), :]).float()
            v = torch.cat([v, z], 1)
            k = torch.cat([k, z], 1)
        else:
            v, k = v[:, :L], k[:, :L]
        qf = torch.fft.rfft(q.permute(0, 2, 3, 1).contiguous(), dim=-1)
        kf = torch.fft.rfft(k.permute(0, 2, 3, 1).contiguous(), dim=-1)
        corr = torch.fft.irfft(qf * torch.conj(kf), dim=-1)
        V = self.agg(v.permute(0, 2, 3, 1).contiguous(), corr).permute(0, 3, 1, 2)
        return self.o(V.contiguous().view(B, L, -1))


@network(
    "Autoformer",
    lambda: (real(12, 3)(), real(12, 2)()),
    "series decomposition, auto-correlation by FFT and gather, circular Conv1d",
    target=(1, 2),
)
class Autoformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.decomp = SeriesDecomp(5)
        self.tok = nn.Conv1d(3, 8, 3, padding=1, padding_mode="circular", bias=False)
        self.time = nn.Linear(2, 8, bias=False)
        self.dtok = nn.Conv1d(3, 8, 3, padding=1, padding_mode="circular", bias=False)
        self.enc, self.dself, self.dcross = AutoCorr(8, 2), AutoCorr(8, 2), AutoCorr(8, 2)
        self.c1, self.c2 = nn.Conv1d(8, 12, 1, bias=False), nn.Conv1d(12, 8, 1, bias=False)
        self.c3, self.c4 = nn.Conv1d(8, 12, 1, bias=False), nn.Conv1d(12, 8, 1, bias=False)
        self.d = nn.ModuleList([SeriesDecomp(5) for _ in range(5)])
        self.n1, self.n2 = MyLN(8), MyLN(8)
        self.tp = nn.Conv1d(8, 3, 3, padding=1, padding_mode="circular", bias=False)
        self.proj = nn.Linear(8, 3)

    def forward(self, x_enc, mark):
        mean = torch.mean(x_enc, dim=1).unsqueeze(1).repeat(1, 4, 1)
        zeros = torch.zeros([x_enc.shape[0], 4, 3])
        seas, trend = self.decomp(x_enc)
        trend = torch.cat([trend[:, -6:, :], mean], dim=1)
        seas = torch.cat([seas[:, -6:, :], zeros], dim=1)
        e = self.tok(x_enc.permute(0, 2, 1)).transpose(1, 2) + self.time(mark)
        x = e + self.enc(e, e, e)
        x, _ = self.d[0](x)
        y = self.c2(F.relu(self.c1(x.transpose(-1, 1)))).transpose(-1, 1)
        e, _ = self.d[1](x + y)
        e = self.n1(e)
        x = self.dtok(seas.permute(0, 2, 1)).transpose(1, 2) + self.time(mark[:, -10:])
        x = x + self.dself(x, x, x)
        x, t1 = self.d[2](x)
        x = x + self.dcross(x, e, e)
        x, t2 = self.d[3](x)
        y = self.c4(F.relu(self.c3(x.transpose(-1, 1)))).transpose(-1, 1)
        x, t3 = self.d[4](x + y)
        r = self.tp((t1 + t2 + t3).permute(0, 2, 1)).transpose(1, 2)
        return (trend + r + self.proj(self.n2(x)))[:, -4:, :]


@network(
    "FEDformer block",
    real(12, 8),
    "chosen Fourier modes by a complex einsum, decomposition",
    target=(1, 2),
    constant=True,
)
class FEDBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.index = [0, 2, 3]
        self.d = SeriesDecomp(5)
        self.w = nn.Parameter(torch.rand(2, 4, 4, 3, dtype=torch.cfloat) * 0.5)
        self.q = nn.Linear(8, 8)
        self.out = nn.Linear(8, 3)

    def compl_mul1d(self, i, w):
        return torch.einsum("bhi,hio->bho", i, w)

    def forward(self, x):
        B, L, _ = x.shape
        q = self.q(x).view(B, L, 2, 4)
        xx = q.permute(0, 2, 3, 1)
        xf = torch.fft.rfft(xx, dim=-1)
        o = torch.zeros(B, 2, 4, L // 2 + 1, dtype=torch.cfloat if x.dtype == torch.float32 else torch.cdouble)
        w = self.w.to(o.dtype)
        for wi, i in enumerate(self.index):
            o[:, :, :, wi] = self.compl_mul1d(xf[:, :, :, i], w[:, :, :, wi])
        y = torch.fft.irfft(o, n=xx.size(-1)).permute(0, 3, 1, 2).reshape(B, L, -1)
        s, t = self.d(x + y)
        return self.out(s) + self.out(t)


class SCIBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.phi, self.psi, self.U, self.P = (
            nn.Sequential(
                nn.ReplicationPad1d((3, 3)),
                nn.Conv1d(c, c * 2, 5, dilation=1),
                nn.LeakyReLU(0.01, inplace=True),
                nn.Dropout(0.5),
                nn.Conv1d(c * 2, c, 3),
                nn.Tanh(),
            )
            for _ in range(4)
        )

    def forward(self, x):
        e, o = x[:, ::2, :], x[:, 1::2, :]
        e, o = e.permute(0, 2, 1), o.permute(0, 2, 1)
        d = o.mul(torch.exp(self.phi(e)))
        c = e.mul(torch.exp(self.psi(o)))
        eu = c + self.U(d)
        ou = d - self.P(c)
        return eu.permute(0, 2, 1), ou.permute(0, 2, 1)


@network("SCINet", real(8, 3), "even and odd steps, scaled by exp of each other, zipped again", target=(1, 2))
class SCINet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = SCIBlock(3), SCIBlock(3), SCIBlock(3)
        self.proj = nn.Conv1d(8, 4, 1, bias=False)

    def zip(self, even, odd):
        even, odd = even.permute(1, 0, 2), odd.permute(1, 0, 2)
        _ = []
        for i in range(even.shape[0]):
            _.append(even[i].unsqueeze(0))
            _.append(odd[i].unsqueeze(0))
        return torch.cat(_, 0).permute(1, 0, 2)

    def forward(self, x):
        res = x
        e, o = self.a(x)
        x = self.zip(self.zip(*self.b(e)), self.zip(*self.c(o)))
        x += res
        return self.proj(x)


@network("TPA-LSTM", real(8, 3), "convolutions over hidden states, weighed by a sigmoid", target=1)
class TPA(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 6)
        self.compute_convolution = nn.Conv2d(1, 4, (7, 1))
        self.attention_matrix = nn.Parameter(torch.ones(4, 6))
        nn.init.xavier_uniform_(self.attention_matrix)
        self.ct, self.ht = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(6, 6))
        self.out = nn.Parameter(torch.randn(3, 6))

    def forward(self, x):
        H, (h, _) = self.lstm(x.permute(1, 0, 2).contiguous())
        H = H[:-1].permute(1, 0, 2)
        htt = h[-1]
        conv = F.relu(self.compute_convolution(H.unsqueeze(1))).squeeze(2)
        s = torch.matmul(torch.matmul(conv.permute(0, 2, 1), self.attention_matrix), htt.unsqueeze(-1)).squeeze(-1)
        alpha = torch.sigmoid(s)
        vt = torch.sum(alpha.unsqueeze(1).expand_as(conv) * conv, dim=2)
        h = torch.mm(vt, self.ct.t()) + torch.mm(htt, self.ht.t())
        return torch.transpose(torch.mm(self.out, h.t()), 0, 1)


@network("FreTS", real(8, 3), "MLP of real and imaginary parts, softshrink", target=(1, 2), constant=True)
class FreTS(nn.Module):
    def __init__(self):
        super().__init__()
        E = 4
        self.E = E
        self.sparsity_threshold = 0.01
        self.embeddings = nn.Parameter(torch.randn(1, E))
        self.r, self.i = nn.Parameter(0.2 * torch.randn(E, E)), nn.Parameter(0.2 * torch.randn(E, E))
        self.rb, self.ib = nn.Parameter(0.2 * torch.randn(E)), nn.Parameter(0.2 * torch.randn(E))
        self.fc = nn.Sequential(nn.Linear(8 * E, 12), nn.LeakyReLU(), nn.Linear(12, 4))

    def frequency_mlp(self, x):
        o1_real = torch.zeros([*x.shape])
        o1_imag = torch.zeros([*x.shape])
        o1_real = F.relu(
            torch.einsum("bijd,dd->bijd", x.real, self.r) - torch.einsum("bijd,dd->bijd", x.imag, self.i) + self.rb
        )
        o1_imag = F.relu(
            torch.einsum("bijd,dd->bijd", x.imag, self.r) + torch.einsum("bijd,dd->bijd", x.real, self.i) + self.ib
        )
        y = torch.stack([o1_real, o1_imag], dim=-1)
        y = F.softshrink(y, lambd=self.sparsity_threshold)
        return torch.view_as_complex(y)

    def forward(self, x):
        B, T, N = x.shape
        x = x.permute(0, 2, 1).unsqueeze(3) * self.embeddings
        bias = x
        x = torch.fft.rfft(x, dim=2, norm="ortho")
        x = self.frequency_mlp(x)
        x = torch.fft.irfft(x, n=T, dim=2, norm="ortho")
        x = x + bias
        return self.fc(x.reshape(B, N, -1)).permute(0, 2, 1)


@network("SegRNN", real(12, 3), "segments into nn.GRU, read at positions", target=(1, 2))
class SegRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.rnn = nn.GRU(8, 8, batch_first=True)
        self.pos = nn.Parameter(torch.randn(2, 4))
        self.ch = nn.Parameter(torch.randn(3, 4))
        self.predict = nn.Sequential(nn.Dropout(0.1), nn.Linear(8, 4))

    def forward(self, x):
        B = x.size(0)
        last = x[:, -1:, :].detach()
        x = (x - last).permute(0, 2, 1)
        x = self.value(x.reshape(-1, 3, 4))
        _, hn = self.rnn(x)
        pos = (
            torch.cat([self.pos.unsqueeze(0).repeat(3, 1, 1), self.ch.unsqueeze(1).repeat(1, 2, 1)], dim=-1)
            .view(-1, 1, 8)
            .repeat(B, 1, 1)
        )
        _, hy = self.rnn(pos, hn.repeat(1, 1, 2).view(1, -1, 8))
        y = self.predict(hy).view(-1, 3, 8)
        return y.permute(0, 2, 1) + last
