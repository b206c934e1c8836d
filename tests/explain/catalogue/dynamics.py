"""Recurrent networks that are no LSTM: independent units, oscillators, reservoirs, fixed memories, decays."""

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real


@network("IndRNN", real(10, 4), "relu(W x + u * h), two layers, BatchNorm between", piecewise=True)
class IndRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.inputs = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 8)])
        self.u, self.norm = nn.Parameter(torch.rand(2, 8) * 1.6 - 0.8), nn.BatchNorm1d(8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        for layer, linear in enumerate(self.inputs):
            h, steps = torch.zeros(x.size(0), 8), []
            for t in range(x.size(1)):
                h = F.relu(linear(x[:, t]) + torch.mul(h, self.u[layer]))
                steps.append(h)
            x = self.norm(torch.stack(steps, 2)).transpose(1, 2)
        return self.fc(x[:, -1])


@network("QRNN", real(10, 4), "masked convolution, fo-pooling")
class QRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(4, 24, 2), nn.Linear(8, 3)

    def forward(self, x):
        z, f, o = self.conv(F.pad(x.transpose(1, 2), (1, 0))).chunk(3, dim=1)
        z, f, o = z.tanh(), f.sigmoid(), o.sigmoid()
        c = None
        for t in range(z.size(2)):
            c = (1 - f[..., t]) * z[..., t] if c is None else f[..., t] * c + (1 - f[..., t]) * z[..., t]
        return self.fc(o[..., -1] * c)


@network("SRU", real(9, 8), "U = W x at once, highway connection, two layers")
class SRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.ParameterList([torch.randn(8, 24) * 0.3 for _ in range(2)])
        self.v, self.b = nn.Parameter(torch.randn(2, 2, 8) * 0.3), nn.Parameter(torch.randn(2, 2, 8) * 0.3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = x.transpose(0, 1)
        for layer in range(2):
            u = x.contiguous().view(-1, 8).mm(self.weight[layer]).view(x.size(0), x.size(1), 8, 3)
            c, outputs = x.new_zeros(x.size(1), 8), []
            for t in range(x.size(0)):
                f = (u[t, ..., 1] + self.v[layer, 0] * c + self.b[layer, 0]).sigmoid()
                r = (u[t, ..., 2] + self.v[layer, 1] * c + self.b[layer, 1]).sigmoid()
                c = u[t, ..., 0] + (c - u[t, ..., 0]) * f
                outputs.append((torch.tanh(c) - x[t]) * r + x[t])
            x = torch.stack(outputs)
        return self.fc(x[-1])


@network("coRNN", real(10, 3), "coupled oscillators: position and velocity", constant=True)
class CoRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.i2h, self.readout, self.dt, self.gamma, self.epsilon = (
            nn.Linear(3 + 16, 8),
            nn.Linear(8, 3),
            0.3,
            1.5,
            1.2,
        )

    def forward(self, x):
        hy, hz = torch.zeros(x.size(0), 8), torch.zeros(x.size(0), 8)
        for t in range(x.size(1)):
            acceleration = torch.tanh(self.i2h(torch.cat((x[:, t], hz, hy), 1)))
            hz = hz + self.dt * (acceleration - self.gamma * hy - self.epsilon * hz)
            hy = hy + self.dt * hz
        return self.readout(hy)


@network("echo state network", real(10, 3), "fixed reservoir in buffers, leaky tanh units")
class EchoState(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("w_in", torch.rand(3, 12) - 0.5)
        w = torch.randn(12, 12)
        self.register_buffer("w", 0.9 * w / torch.linalg.eigvals(w).abs().max())
        self.leak, self.readout = 0.3, nn.Linear(12, 3)

    def forward(self, x):
        state = torch.zeros(x.size(0), 12)
        for u in x.unbind(dim=1):
            state = (1 - self.leak) * state + self.leak * torch.tanh(u @ self.w_in + state @ self.w)
        return self.readout(state)


@network("clockwork RNN", real(9, 3), "modules of several periods, assignment into slices")
class Clockwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.u, self.fc, self.periods = (
            nn.Linear(3, 9),
            nn.Linear(9, 9, bias=False),
            nn.Linear(9, 3),
            (1, 2, 4),
        )

    def forward(self, x):
        h = torch.zeros(x.size(0), 9)
        for t in range(x.size(1)):
            new = torch.tanh(self.w(x[:, t]) + self.u(h))
            h = h.clone()
            for i, period in enumerate(self.periods):
                if t % period == 0:
                    h[:, 3 * i : 3 * i + 3] = new[:, 3 * i : 3 * i + 3]
        return self.fc(h)


@network("antisymmetric RNN", real(9, 3), "h + eps tanh((W - W^T - gamma I) h + V x)")
class Antisymmetric(nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.V, self.fc = nn.Parameter(torch.randn(8, 8) * 0.4), nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = x.new_zeros(x.size(0), 8)
        A = self.W - self.W.T - 0.01 * torch.eye(8)
        for t in range(x.size(1)):
            h = h + 0.3 * torch.tanh(h.matmul(A.T) + self.V(x[:, t]))
        return self.fc(h)


@network(
    "GRU-D",
    lambda: {"x": real(8, 4)(), "delta": real(8, 4)().abs()},
    "missing values: mask, decay exp(-relu(.))",
    arguments=lambda: {"mask": (torch.rand(3, 8, 4) < 0.7).to(torch.get_default_dtype())},
    constant=True,
)
class GRUD(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("x_mean", torch.randn(4) * 0.3)
        self.gamma_x, self.gamma_h = nn.Parameter(torch.rand(4)), nn.Linear(4, 7)
        self.zl, self.rl, self.hl, self.fc = (
            (nn.Linear(4 + 7 + 4, 7) for _ in range(3)),
            None,
            None,
            nn.Linear(7, 3),
        )
        self.zl, self.rl, self.hl = nn.ModuleList(self.zl)

    def forward(self, x, delta, mask):
        h = torch.zeros(x.size(0), 7)
        for t in range(x.size(1)):
            m, d = mask[:, t], delta[:, t]
            dx, dh = torch.exp(-F.relu(self.gamma_x * d)), torch.exp(-F.relu(self.gamma_h(d)))
            x_t = m * x[:, t] + (1 - m) * (dx * x[:, t] + (1 - dx) * self.x_mean)
            h = dh * h
            combined = torch.cat((x_t, h, m), 1)
            z, r = torch.sigmoid(self.zl(combined)), torch.sigmoid(self.rl(combined))
            h = (1 - z) * h + z * torch.tanh(self.hl(torch.cat((x_t, r * h, m), 1)))
        return self.fc(h)


@network("recurrent highway network", real(7, 4), "two highway layers a step, coupled carry gate")
class RecurrentHighway(nn.Module):
    def __init__(self):
        super().__init__()
        self.x, self.r, self.fc = (
            nn.Linear(4, 14),
            nn.ModuleList([nn.Linear(7, 14), nn.Linear(7, 14)]),
            nn.Linear(7, 3),
        )

    def forward(self, x):
        s = x.new_zeros(len(x), 7)
        for t in range(x.shape[1]):
            for depth, layer in enumerate(self.r):
                h, g = (layer(s) + (self.x(x[:, t]) if depth == 0 else 0)).chunk(2, -1)
                g = g.sigmoid()
                s = h.tanh() * g + s * (1 - g)
        return self.fc(s)


@network("FastGRNN", real(9, 4), "low-rank matrices, learnt scalars zeta and nu")
class FastGRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2, self.u1, self.u2 = (
            nn.Parameter(torch.randn(*s) * 0.6) for s in ((4, 3), (3, 7), (7, 3), (3, 7))
        )
        self.bg, self.bu, self.fc = nn.Parameter(torch.ones(1, 7)), nn.Parameter(torch.ones(1, 7)), nn.Linear(7, 3)
        self.zeta, self.nu = nn.Parameter(torch.ones(1, 1)), nn.Parameter(-4 * torch.ones(1, 1))

    def forward(self, x):
        h = x.new_zeros(len(x), 7)
        for t in range(x.shape[1]):
            pre = torch.matmul(torch.matmul(x[:, t], self.w1), self.w2) + torch.matmul(
                torch.matmul(h, self.u1), self.u2
            )
            z, c = torch.sigmoid(pre + self.bg), torch.tanh(pre + self.bu)
            h = z * h + (torch.sigmoid(self.zeta) * (1.0 - z) + torch.sigmoid(self.nu)) * c
        return self.fc(h)
