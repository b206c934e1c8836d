"""State spaces, scans and what replaces attention by them; networks for pictures read by recurrence."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real


@network(
    "Mamba block",
    real(8, 4),
    "depthwise Conv1d, SiLU, selective scan, product with a SiLU branch",
    options={"products": "half"},
)
class Mamba(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.in_proj, self.conv1d = (
            nn.Linear(4, 6),
            nn.Linear(6, 16, bias=False),
            nn.Conv1d(8, 8, 3, groups=8, padding=2),
        )
        self.x_proj, self.dt_proj = nn.Linear(8, 2 + 2 * 3, bias=False), nn.Linear(2, 8)
        self.A_log, self.D = (
            nn.Parameter(torch.log(torch.arange(1.0, 4.0)).repeat(8, 1)),
            nn.Parameter(torch.ones(8)),
        )
        self.out_proj, self.norm, self.fc = nn.Linear(8, 6, bias=False), nn.RMSNorm(6), nn.Linear(6, 3)

    def forward(self, u):
        u = self.embed(u)
        (b, length, _) = u.shape
        x, res = self.in_proj(self.norm(u)).split([8, 8], dim=-1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[:, :, :length].transpose(1, 2))
        delta, B, C = self.x_proj(x).split([2, 3, 3], dim=-1)
        delta, A = F.softplus(self.dt_proj(delta)), -torch.exp(self.A_log)
        deltaA = torch.exp(torch.einsum("bld,dn->bldn", delta, A))
        deltaB_u = torch.einsum("bld,bln,bld->bldn", delta, B, x)
        state, ys = torch.zeros((b, 8, 3)), []
        for i in range(length):
            state = deltaA[:, i] * state + deltaB_u[:, i]
            ys.append(torch.einsum("bdn,bn->bd", state, C[:, i, :]))
        y = (torch.stack(ys, dim=1) + x * self.D) * F.silu(res)
        return self.fc((u + self.out_proj(y)).mean(1))


@network("S4D", real(10, 4), "diagonal complex state space as a long convolution by FFT, GELU, GLU")
class S4D(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.D, self.norm, self.decoder = (
            nn.Linear(4, 6),
            nn.Parameter(torch.randn(6)),
            nn.LayerNorm(6),
            nn.Linear(6, 3),
        )
        self.log_A, self.A_imag = (
            nn.Parameter(torch.log(0.5 * torch.ones(6, 2))),
            nn.Parameter(math.pi * torch.arange(2.0).repeat(6, 1)),
        )
        self.C, self.log_dt = nn.Parameter(torch.randn(6, 2, 2)), nn.Parameter(torch.rand(6) - 2)
        self.output_linear = nn.Sequential(nn.Conv1d(6, 12, 1), nn.GLU(dim=-2))

    def kernel(self, length):
        dt, A = torch.exp(self.log_dt)[:, None], -torch.exp(self.log_A) + 1j * self.A_imag
        K = (A * dt)[..., None] * torch.arange(length)
        C = torch.view_as_complex(self.C.contiguous()) * (torch.exp(A * dt) - 1.0) / A
        return 2 * torch.einsum("hn,hnl->hl", C, torch.exp(K)).real

    def forward(self, x):
        u = self.encoder(x).transpose(-1, -2)
        n = u.size(-1)
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * n) * torch.fft.rfft(self.kernel(n), n=2 * n), n=2 * n)[..., :n]
        y = self.output_linear(F.gelu(y + u * self.D.unsqueeze(-1)))
        return self.decoder(self.norm((y + u).transpose(-1, -2)).mean(dim=1))


@network(
    "linear recurrent unit",
    real(9, 4),
    "complex diagonal recurrence, the real part read",
    target=1,
)
class LRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.nu_log, self.theta_log = nn.Parameter(torch.randn(5) * 0.3 - 1), nn.Parameter(torch.randn(5) * 0.3)
        self.B_re, self.B_im, self.C_re, self.C_im = (
            nn.Parameter(torch.randn(*s) * 0.4) for s in ((5, 4), (5, 4), (6, 5), (6, 5))
        )
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        magnitude, theta = torch.exp(-torch.exp(self.nu_log)), torch.exp(self.theta_log)
        Lambda = torch.complex(magnitude * torch.cos(theta), magnitude * torch.sin(theta))
        B, C = self.B_re + 1j * self.B_im, self.C_re + 1j * self.C_im
        state = torch.zeros(x.size(0), 5, dtype=B.dtype)
        for step in x.unbind(1):
            state = Lambda * state + step.to(B.dtype) @ B.T
        return self.fc(F.relu((state @ C.T).real))


@network(
    "LRU in real numbers",
    real(9, 4),
    "rotation of pairs of units, stack of real and imaginary part",
    piecewise=True,
)
class RealLRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.r, self.theta = nn.Parameter(torch.rand(5) * 0.5 + 0.4), nn.Parameter(torch.rand(5) * 3)
        self.B, self.C, self.fc = nn.Linear(4, 10, bias=False), nn.Linear(10, 6), nn.Linear(6, 3)

    def forward(self, x):
        u_re, u_im = self.B(x).unflatten(-1, (2, 5)).unbind(-2)
        a, b = self.r * self.theta.cos(), self.r * self.theta.sin()
        re, im = torch.zeros_like(u_re[:, 0]), torch.zeros_like(u_im[:, 0])
        for t in range(x.size(1)):
            re, im = a * re - b * im + u_re[:, t], a * im + b * re + u_im[:, t]
        return self.fc(F.relu(self.C(torch.stack([re, im], 1).flatten(1))))


@network(
    "moving averages with gates", real(8, 4), "exponential moving average along time, reset and update gates, SiLU"
)
class MEGA(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.alpha, self.r, self.u, self.h = (
            nn.Linear(4, 6),
            nn.Parameter(torch.randn(6)),
            *(nn.Linear(6, 6) for _ in range(3)),
        )
        self.norm, self.fc = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.embed(x)
        alpha = torch.sigmoid(self.alpha)
        ema, y = [], torch.zeros_like(x[:, 0])
        for t in range(x.size(1)):
            y = alpha * x[:, t] + (1 - alpha) * y
            ema.append(y)
        ema = F.silu(torch.stack(ema, 1))
        r, u = torch.sigmoid(self.r(ema)), torch.sigmoid(self.u(ema))
        out = u * F.silu(self.h(r * ema)) + (1 - u) * x
        return self.fc(self.norm(out)[:, -1])


@network("real-gated linear recurrent unit", real(8, 4), "decay a^(c r), sqrt(1 - a^2) times the gated input")
class RGLRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.w_r, self.w_i, self.Lambda = (
            nn.Linear(4, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Parameter(torch.randn(6)),
        )
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.embed(x)
        r, i = torch.sigmoid(self.w_r(x)), torch.sigmoid(self.w_i(x))
        log_a = -8.0 * F.softplus(self.Lambda) * r * 0.1
        a = torch.exp(log_a)
        gated = torch.sqrt(1 - torch.exp(2 * log_a)) * (i * x)
        h = torch.zeros_like(x[:, 0])
        for t in range(x.size(1)):
            h = a[:, t] * h + gated[:, t]
        return self.fc(h)


@network("ReNet", real(2, 6, 6), "nn.GRU along rows, then along columns of patches")
class ReNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.columns = (
            nn.GRU(8, 4, bidirectional=True, batch_first=True),
            nn.GRU(8, 4, bidirectional=True, batch_first=True),
        )
        self.fc = nn.Linear(9 * 8, 3)

    def forward(self, x):
        b = x.size(0)
        x = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).contiguous().view(b, 3, 3, 8)
        x, _ = self.rows(x.view(b * 3, 3, 8))
        x = x.view(b, 3, 3, 8).permute(0, 2, 1, 3).contiguous().view(b * 3, 3, 8)
        x, _ = self.columns(x)
        return self.fc(x.reshape(b, -1))


@network("row LSTM, resized", real(1, 7, 7), "bilinear interpolation, replication padding, nn.LSTM over rows")
class RowLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(10, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        x = F.interpolate(x, size=(8, 8), mode="bilinear", align_corners=False)
        x = F.pad(x, (1, 1, 0, 0), mode="replicate").squeeze(1)
        return self.fc(self.lstm(x)[1][0][-1])


@network(
    "U-Net for series",
    real(2, 16),
    "skip connections, upsampling, transposed convolution",
    piecewise=True,
    target=lambda out: out[:, 1, 4:9].mean(-1),
)
class UTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.d1, self.d2, self.d3 = (
            nn.Conv1d(2, 4, 3, padding=1),
            nn.Conv1d(4, 6, 3, padding=1),
            nn.Conv1d(6, 6, 3, padding=1),
        )
        self.up, self.t, self.u2, self.u1 = (
            nn.Upsample(scale_factor=2),
            nn.ConvTranspose1d(6, 4, 2, stride=2),
            nn.Conv1d(12, 6, 3, padding=1),
            nn.Conv1d(8, 4, 3, padding=1),
        )
        self.out = nn.Conv1d(4, 2, 1)

    def forward(self, x):
        a = F.relu(self.d1(x))
        b = F.relu(self.d2(F.max_pool1d(a, 2)))
        c = F.relu(self.d3(F.avg_pool1d(b, 2)))
        b = F.relu(self.u2(torch.cat([self.up(c), b], 1)))
        return self.out(F.relu(self.u1(torch.cat([self.t(b), a], 1))))


@network(
    "selective state space, complex",
    real(6, 3),
    "exp(dt A) of complex A and dt a softplus, torch.addcmul, the real part read",
)
class ComplexSelective(nn.Module):
    def __init__(self):
        super().__init__()
        self.step, self.drive, self.fc = nn.Linear(3, 6), nn.Linear(3, 6), nn.Linear(3, 3)
        self.decay, self.angle = nn.Parameter(torch.rand(6)), nn.Parameter(2 * torch.randn(6))
        self.read, self.turned = nn.Linear(6, 3, bias=False), nn.Linear(6, 3, bias=False)

    def forward(self, x):
        A = torch.complex(-torch.exp(self.decay), self.angle)
        dt = F.softplus(self.step(x))
        drive = (dt * self.drive(x)).to(A.dtype)
        h = torch.zeros_like(drive[:, 0])
        for t in range(x.size(1)):
            h = torch.addcmul(drive[:, t], torch.exp(dt[:, t] * A), h)
        return self.fc(F.gelu((h @ torch.complex(self.read.weight, self.turned.weight).T).real))
