"""Recurrent networks that are no LSTM, continued: pictures as states, fixed memories, continuous time, scans."""

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real


class ConvLSTMCell(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.hidden, self.conv = hidden, nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x, state):
        h, c = state
        cc_i, cc_f, cc_o, cc_g = torch.split(self.conv(torch.cat([x, h], dim=1)), self.hidden, dim=1)
        c_next = torch.sigmoid(cc_f) * c + torch.sigmoid(cc_i) * torch.tanh(cc_g)
        return torch.sigmoid(cc_o) * torch.tanh(c_next), c_next


@network("ConvLSTM", real(5, 1, 6, 6), "state is a picture, two layers, adaptive average pooling", constant=True)
class ConvLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell_list = nn.ModuleList([ConvLSTMCell(1, 3), ConvLSTMCell(3, 4)])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    def forward(self, x):
        b, t, _, height, width = x.size()
        for cell in self.cell_list:
            h, c = torch.zeros(b, cell.hidden, height, width), torch.zeros(b, cell.hidden, height, width)
            inner = []
            for step in range(t):
                h, c = cell(x[:, step, :, :, :], (h, c))
                inner.append(h)
            x = torch.stack(inner, dim=1)
        return self.head(x[:, -1])


@network("ConvGRU", real(4, 2, 6, 6), "reset gate before a convolution, max pooling", constant=True)
class ConvGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates, self.candidate = nn.Conv2d(2 + 4, 8, 3, padding=1), nn.Conv2d(2 + 4, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 9, 3)

    def forward(self, x):
        h = torch.zeros([x.shape[0], 4, *x.shape[-2:]])
        for t in range(x.shape[1]):
            r, z = torch.sigmoid(self.gates(torch.cat([x[:, t], h], 1))).split(4, 1)
            h = (1 - z) * h + z * torch.tanh(self.candidate(torch.cat([x[:, t], r * h], 1)))
        return self.fc(F.max_pool2d(h, 2).view(h.size(0), -1))


@network("Legendre memory unit", real(9, 1), "fixed state matrices beside a tanh state")
class LMU(nn.Module):
    def __init__(self):
        super().__init__()
        q = torch.arange(6.0)
        i, j = torch.meshgrid(q, q, indexing="ij")
        A = torch.where(i < j, -1.0, (-1.0) ** (i - j + 1)) * (2 * i + 1)
        self.register_buffer("A", torch.linalg.matrix_exp(A / 9))
        self.register_buffer("B", ((-1.0) ** q * (2 * q + 1) / 9)[:, None])
        self.e_x, self.e_h, self.e_m = (nn.Parameter(torch.randn(1, n) * 0.5) for n in (1, 8, 6))
        self.W_x, self.W_h, self.W_m, self.fc = nn.Linear(1, 8), nn.Linear(8, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        h, m = x.new_zeros(len(x), 8), x.new_zeros(len(x), 6)
        for t in range(x.size(1)):
            u = F.linear(x[:, t], self.e_x) + F.linear(h, self.e_h) + F.linear(m, self.e_m)
            m = F.linear(m, self.A) + F.linear(u, self.B)
            h = torch.tanh(self.W_x(x[:, t]) + self.W_h(h) + self.W_m(m))
        return self.fc(h)


@network(
    "closed-form continuous-time network",
    lambda: real(8, 3)(),
    "sigmoid(-f t) g + (1 - sigmoid(-f t)) h, time spans",
    arguments=lambda: {"timespans": torch.rand(3, 8)},
    constant=True,
)
class CfC(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3 + 6, 8), nn.Tanh())
        self.ff1, self.ff2, self.time_a, self.time_b, self.fc = (
            (nn.Linear(8, 6) for _ in range(4)),
            None,
            None,
            None,
            nn.Linear(6, 3),
        )
        self.ff1, self.ff2, self.time_a, self.time_b = nn.ModuleList(self.ff1)

    def forward(self, x, timespans):
        h = torch.zeros(x.size(0), 6)
        for t in range(x.size(1)):
            z = self.backbone(torch.cat([x[:, t], h], 1))
            ts = timespans[:, t].view(-1, 1)
            ff1, ff2 = torch.tanh(self.ff1(z)), torch.tanh(self.ff2(z))
            gate = torch.sigmoid(self.time_a(z) * ts + self.time_b(z))
            h = ff1 * (1.0 - gate) + gate * ff2
        return self.fc(h)


@network(
    "liquid time-constant network",
    real(6, 3),
    "semi-implicit Euler steps, division by a gate",
    constant=True,
    second_way=False,
    refused="product of two gates",
)
class LTC(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.A, self.tau, self.fc = (
            nn.Linear(3 + 6, 6),
            nn.Parameter(torch.randn(6)),
            nn.Parameter(torch.ones(6)),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        h, dt = x.new_zeros(len(x), 6), 0.3
        for t in range(x.size(1)):
            for _ in range(2):
                f = torch.sigmoid(self.f(torch.cat([x[:, t], h], 1)))
                h = (h + dt * f * self.A) / (1 + dt * (1 / self.tau.abs() + f))
        return self.fc(h)


@network("ODE-RNN", real(6, 3), "Euler steps of a small network between nn.GRUCell updates")
class ODERNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.func = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))
        self.cell, self.fc = nn.GRUCell(3, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = x.new_zeros(len(x), 6)
        for t in range(x.size(1)):
            for _ in range(3):
                h = h + 0.1 * self.func(h)
            h = self.cell(x[:, t], h)
        return self.fc(h)


@network("dilated RNN", real(8, 3), "nn.RNN on every second step, folded into the batch")
class DilatedRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnns, self.fc = nn.ModuleList([nn.RNN(3, 6), nn.RNN(6, 6), nn.RNN(6, 6)]), nn.Linear(6, 3)

    def forward(self, x):
        x = x.transpose(0, 1)
        for rate, rnn in zip((1, 2, 4), self.rnns, strict=True):
            folded = torch.cat([x[j::rate] for j in range(rate)], 1)
            out, _ = rnn(folded)
            parts = out.chunk(rate, dim=1)
            x = torch.stack(parts, dim=1).flatten(0, 1)
        return self.fc(x[-1])


@network("minGRU", real(9, 4), "gate and candidate from the input only, loop")
class MinGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear_z, self.linear_h, self.fc = nn.Linear(4, 7), nn.Linear(4, 7), nn.Linear(7, 3)

    def forward(self, x):
        z, h_tilde = torch.sigmoid(self.linear_z(x)), self.linear_h(x)
        h = torch.zeros_like(h_tilde[:, 0])
        for t in range(x.shape[1]):
            h = (1 - z[:, t]) * h + z[:, t] * h_tilde[:, t]
        return self.fc(h)


@network("minLSTM, parallel", real(9, 4), "normalised gates, scan by cumprod and cumsum")
class MinLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.i, self.h, self.fc = nn.Linear(4, 7), nn.Linear(4, 7), nn.Linear(4, 7), nn.Linear(7, 3)

    def forward(self, x):
        f, i = torch.sigmoid(self.f(x)), torch.sigmoid(self.i(x))
        f, i = f / (f + i), i / (f + i)
        decay = torch.cumprod(f, dim=1)
        h = decay * torch.cumsum(i * self.h(x) / decay, dim=1)
        return self.fc(h[:, -1])


@network("minGRU in log space", real(9, 4), "softplus, logcumsumexp, exp", refused="exp")
class LogMinGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.both, self.fc = nn.Linear(4, 14), nn.Linear(7, 3)

    def forward(self, x):
        hidden, gate = self.both(x).chunk(2, dim=-1)
        log_g = torch.where(hidden >= 0, (F.relu(hidden) + 0.5).log(), -F.softplus(-hidden))
        star = F.pad((-F.softplus(gate)).cumsum(dim=1), (0, 0, 0, 0))
        return self.fc((star + ((-F.softplus(-gate) + log_g) - star).logcumsumexp(dim=1)).exp()[:, -1])


@network(
    "self-attention ConvLSTM",
    real(3, 1, 4, 4),
    "attention to the hidden state and to a memory, which begins with zeros",
    constant=True,
)
class SAConvLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates, self.attend = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.query, self.key, self.value, self.key_m, self.value_m = (nn.Conv2d(2, 2, 1) for _ in range(5))
        self.mix, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(2, 3)

    @staticmethod
    def read(query, key, value):
        weights = torch.softmax(query.flatten(2).mT @ key.flatten(2), -1)
        return (weights @ value.flatten(2).mT).mT.view_as(value)

    def forward(self, x):
        h = c = m = x.new_zeros(len(x), 2, 4, 4)
        for frame in x.unbind(1):
            i, f, g, o = self.gates(torch.cat([frame, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            query = self.query(h)
            seen = self.read(query, self.key(h), self.value(h))
            remembered = self.read(query, self.key_m(m), self.value_m(m))
            z = self.mix(torch.cat([seen, remembered], 1))
            o, g, i = self.attend(torch.cat([z, h], 1)).chunk(3, 1)
            i = i.sigmoid()
            m = (1 - i) * m + i * g.tanh()
            h = o.sigmoid() * m
        return self.fc(h.mean((2, 3)))
