"""Transformers and attention, continued: sets, pictures, speech, kernels, mixing without attention."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real


@network("bidirectional LSTM, attention pooling", real(8, 4), "softmax over time, weighted sum of nn.LSTM states")
class AttentionPooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.w = (
            nn.LSTM(4, 6, bidirectional=True, batch_first=True),
            nn.Parameter(torch.randn(12) * 0.5),
        )
        self.fc1, self.fc = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x):
        H, _ = self.lstm(x)
        alpha = F.softmax(torch.matmul(torch.tanh(H), self.w), dim=1).unsqueeze(-1)
        out = torch.tanh(torch.sum(H * alpha, 1))
        return self.fc(F.relu(self.fc1(out)))


@network("bidirectional LSTM, max over time", real(8, 4), "max over time of nn.LSTM states")
class MaxOverTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(4, 6, bidirectional=True, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        out, _ = self.lstm(x)
        value, _ = torch.max(out, dim=1)
        return self.fc(value)


@network("LSTM, self-attention with several hops", real(7, 4), "softmax(W2 tanh(W1 H)), bmm, flatten")
class SelfAttentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.s1, self.s2 = (
            nn.LSTM(4, 5, bidirectional=True),
            nn.Linear(10, 6, bias=False),
            nn.Linear(6, 2, bias=False),
        )
        self.fc, self.label = nn.Linear(20, 8), nn.Linear(8, 3)

    def forward(self, x):
        output = self.lstm(x.permute(1, 0, 2))[0].permute(1, 0, 2)
        weights = F.softmax(self.s2(torch.tanh(self.s1(output))).permute(0, 2, 1), dim=2)
        hidden = torch.bmm(weights, output)
        return self.label(self.fc(hidden.view(-1, hidden.size(1) * hidden.size(2))))


@network("LSTM, dot-product attention on the last state", real(8, 4), "bmm of states with the last one, softmax")
class LastStateAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        output, (final, _) = self.lstm(x)
        weights = torch.bmm(output, final.squeeze(0).unsqueeze(2)).squeeze(2)
        soft = F.softmax(weights, 1)
        return self.fc(torch.bmm(output.transpose(1, 2), soft.unsqueeze(2)).squeeze(2))


@network("set transformer", real(6, 4), "attention blocks, pooling by a learnt seed")
class SetTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.q, self.k, self.v, self.o = (nn.Linear(n, 8) for n in (4, 8, 8, 8, 8))
        self.seed, self.pool, self.fc = (
            nn.Parameter(torch.randn(1, 1, 8)),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 3),
        )

    def block(self, X, Y):
        Q, K, V = self.q(X), self.k(Y), self.v(Y)
        Q_, K_, V_ = (torch.cat(t.split(4, 2), 0) for t in (Q, K, V))
        A = torch.softmax(Q_.bmm(K_.transpose(1, 2)) / math.sqrt(8), 2)
        O = torch.cat((Q_ + A.bmm(V_)).split(Q.size(0), 0), 2)  # noqa: E741
        return O + F.relu(self.o(O))

    def forward(self, x):
        h = self.embed(x)
        h = self.block(h, h)
        return self.fc(self.pool(self.seed.repeat(x.size(0), 1, 1), h, h)[0].squeeze(1))


@network(
    "small vision transformer",
    real(1, 8, 8),
    "patches by a convolution, qkv in one reshape, class token",
    constant=True,
)
class SmallViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.cls, self.pos = (
            nn.Conv2d(1, 8, 4, 4),
            nn.Parameter(torch.zeros(1, 1, 8)),
            nn.Parameter(torch.zeros(1, 5, 8)),
        )
        self.norm1, self.norm2, self.qkv, self.proj = (
            nn.LayerNorm(8),
            nn.LayerNorm(8),
            nn.Linear(8, 24),
            nn.Linear(8, 8),
        )
        self.mlp, self.head = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)), nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), dim=1) + self.pos
        B, N, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(B, N, 3, 2, C // 2).permute(2, 0, 3, 1, 4)
        attn = (q * (C // 2) ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
        x = x + self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


@network(
    "Conformer block",
    real(8, 6),
    "half-step SiLU feed-forwards, GLU, depthwise convolution, nn.MultiheadAttention",
)
class Conformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.ff1, self.ff2 = (
            nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 12), nn.SiLU(), nn.Linear(12, 6)) for _ in range(2)
        )
        self.norm, self.mha, self.last = nn.LayerNorm(6), nn.MultiheadAttention(6, 2), nn.LayerNorm(6)
        self.conv_norm, self.conv = (
            nn.LayerNorm(6),
            nn.Sequential(
                nn.Conv1d(6, 12, 1),
                nn.GLU(dim=1),
                nn.Conv1d(6, 6, 3, padding=1, groups=6),
                nn.BatchNorm1d(6),
                nn.SiLU(),
                nn.Conv1d(6, 6, 1),
            ),
        )
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = 0.5 * self.ff1(x) + x
        y = self.norm(x).transpose(0, 1)
        x = x + self.mha(y, y, y, need_weights=False)[0].transpose(0, 1)
        x = x + self.conv(self.conv_norm(x).transpose(1, 2)).transpose(1, 2)
        x = self.last(x + 0.5 * self.ff2(x))
        return self.fc(x.mean(1))


@network("Perceiver", real(9, 4), "learnt queries read the input by nn.MultiheadAttention with other key sizes")
class Perceiver(nn.Module):
    def __init__(self):
        super().__init__()
        self.latents, self.norm_x, self.norm = nn.Parameter(torch.randn(3, 8)), nn.LayerNorm(4), nn.LayerNorm(8)
        self.cross, self.ff = (
            nn.MultiheadAttention(8, 2, kdim=4, vdim=4, batch_first=True),
            nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)),
        )
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        z, x = self.latents.unsqueeze(0).expand(len(x), -1, -1), self.norm_x(x)
        for _ in range(2):
            z = z + self.cross(self.norm(z), x, x)[0]
            z = z + self.ff(z)
        return self.fc(z.mean(1))


@network("MLP-Mixer", real(1, 8, 8), "patches by unfold, token and channel MLPs")
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.unfold, self.embed = nn.Unfold(4, stride=4), nn.Linear(16, 8)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.token, self.channel = (nn.Sequential(nn.Linear(n, 10), nn.GELU(), nn.Linear(10, n)) for n in (4, 8))
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(self.unfold(x).transpose(1, 2))
        x = x + self.token(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channel(self.norm2(x))
        return self.fc(self.norm3(x).mean(dim=1))


@network(
    "linear attention",
    real(8, 4),
    "elu + 1 of queries and keys, einsum, a normaliser",
    options={"products": "half"},
)
class LinearAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.fc = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        kv = torch.einsum("bnd,bne->bde", k, v)
        z = 1 / (torch.einsum("bnd,bd->bn", q, k.sum(1)) + 1e-6)
        return self.fc(torch.einsum("bnd,bde,bn->bne", q, kv, z).mean(1))


@network("FNet", real(8, 6), "Fourier transform in place of attention", constant=True)
class FNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2, self.fc = nn.LayerNorm(6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.ff = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))

    def forward(self, x):
        x = self.norm1(x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)
        x = self.norm2(x + self.ff(x))
        return self.fc(x.mean(1))
