"""LSTM and GRU cells and their relatives, written by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real


@network("LSTM by hand (chunk)", real(8, 4), "chunk, cat of x and h", constant=True)
class ChunkLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates, self.fc = nn.Linear(4 + 7, 4 * 7), nn.Linear(7, 3)

    def forward(self, x):
        h, c = torch.zeros(x.size(0), 7), torch.zeros(x.size(0), 7)
        for t in range(x.size(1)):
            i, f, o, g = self.gates(torch.cat([x[:, t, :], h], dim=-1)).chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.fc(h)


@network("LSTM by hand (in place)", real(8, 4), "sigmoid_, mul_ and add_ on slices of one buffer")
class InPlaceLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.ih, self.hh, self.fc = nn.Linear(4, 28), nn.Linear(7, 28), nn.Linear(7, 3)

    def forward(self, x):
        h, c = x.new_zeros(x.size(0), 7), x.new_zeros(x.size(0), 7)
        for t in range(x.size(1)):
            preact = self.ih(x[:, t]).add_(self.hh(h))
            gates, g = preact[:, :21].sigmoid(), preact[:, 21:].tanh()
            c = c.mul(gates[:, :7]).add_(gates[:, 7:14] * g)
            h = gates[:, -7:] * c.tanh()
        return self.fc(h)


@network("LSTM by hand (slices)", real(8, 4), "matrices W, U and slices, unsqueeze and cat of steps")
class SliceLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.U = nn.Parameter(torch.randn(4, 28) * 0.4), nn.Parameter(torch.randn(7, 28) * 0.4)
        self.bias, self.fc = nn.Parameter(torch.zeros(28)), nn.Linear(7, 3)

    def forward(self, x):
        bs, steps, _ = x.size()
        hidden_seq, hs = [], 7
        h_t, c_t = x.new_zeros(bs, hs), x.new_zeros(bs, hs)
        for t in range(steps):
            gates = x[:, t, :] @ self.W + h_t @ self.U + self.bias
            i_t, f_t = torch.sigmoid(gates[:, :hs]), torch.sigmoid(gates[:, hs : hs * 2])
            g_t, o_t = torch.tanh(gates[:, hs * 2 : hs * 3]), torch.sigmoid(gates[:, hs * 3 :])
            c_t = f_t * c_t + i_t * g_t
            h_t = o_t * torch.tanh(c_t)
            hidden_seq.append(h_t.unsqueeze(0))
        hidden_seq = torch.cat(hidden_seq, dim=0).transpose(0, 1).contiguous()
        return self.fc(hidden_seq[:, -1])


@network("GRU by hand", real(8, 4), "reset gate before the matrix, (1 - z) h + z n", constant=True)
class HandGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.z, self.r, self.n = (nn.Linear(4 + 7, 7) for _ in range(3))
        self.out = nn.Linear(7, 3)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 7, device=x.device)
        for t in range(x.shape[1]):
            xh = torch.cat((x[:, t], h), 1)
            z, r = torch.sigmoid(self.z(xh)), torch.sigmoid(self.r(xh))
            n = torch.tanh(self.n(torch.cat((x[:, t], r * h), 1)))
            h = (1 - z) * h + z * n
        return self.out(h)


@network(
    "GRU by hand (n + z (h - n))", real(8, 4), "chunk(3), reset gate after the matrix, difference times a gate"
)
class FastGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.x2h, self.h2h, self.fc = nn.Linear(4, 21), nn.Linear(7, 21), nn.Linear(7, 3)

    def forward(self, x):
        hx = x.new_zeros(x.size(0), 7)
        for seq in range(x.size(1)):
            gate_x, gate_h = self.x2h(x[:, seq]).squeeze(), self.h2h(hx).squeeze()
            if gate_x.dim() == 1:
                gate_x, gate_h = gate_x[None], gate_h[None]
            i_r, i_i, i_n = gate_x.chunk(3, 1)
            h_r, h_i, h_n = gate_h.chunk(3, 1)
            resetgate, inputgate = torch.sigmoid(i_r + h_r), torch.sigmoid(i_i + h_i)
            newgate = torch.tanh(i_n + (resetgate * h_n))
            hx = newgate + inputgate * (hx - newgate)
        return self.fc(hx)


@network("peephole LSTM", real(8, 4), "gates read the cell, addcmul")
class Peephole(nn.Module):
    def __init__(self):
        super().__init__()
        self.ih, self.hh = nn.Linear(4, 28), nn.Linear(7, 28, bias=False)
        self.peep, self.fc = nn.Parameter(torch.randn(3, 7) * 0.3), nn.Linear(7, 3)

    def forward(self, x):
        h = c = x.new_zeros(x.size(0), 7)
        for step in torch.unbind(x, dim=1):
            i, f, g, o = torch.split(self.ih(step) + self.hh(h), 7, dim=1)
            i, f = torch.sigmoid(i + self.peep[0] * c), torch.sigmoid(f + self.peep[1] * c)
            c = torch.addcmul(f * c, i, torch.tanh(g))
            h = torch.sigmoid(torch.addcmul(o, self.peep[2], c)) * torch.tanh(c)
        return self.fc(h)


@network("layer-norm LSTM", real(7, 4), "LayerNorm on gates and cell, F.linear")
class NormLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight_ih, self.weight_hh = (
            nn.Parameter(torch.randn(28, 4) * 0.4),
            nn.Parameter(torch.randn(28, 7) * 0.4),
        )
        self.ln_i, self.ln_h, self.ln_c, self.fc = (
            nn.LayerNorm(28),
            nn.LayerNorm(28),
            nn.LayerNorm(7),
            nn.Linear(7, 3),
        )

    def forward(self, x):
        hx, cx = x.new_zeros(len(x), 7), x.new_zeros(len(x), 7)
        for t in range(x.shape[1]):
            gates = self.ln_i(torch.mm(x[:, t], self.weight_ih.t())) + self.ln_h(F.linear(hx, self.weight_hh))
            ingate, forgetgate, cellgate, outgate = gates.chunk(4, 1)
            cx = self.ln_c(torch.sigmoid(forgetgate) * cx + torch.sigmoid(ingate) * torch.tanh(cellgate))
            hx = torch.sigmoid(outgate) * torch.tanh(cx)
        return self.fc(hx)


@network("coupled-gate LSTM", real(8, 4), "1 - forget gate, torch.lerp", constant=True)
class Coupled(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.g, self.o, self.fc = nn.Linear(11, 7), nn.Linear(11, 7), nn.Linear(11, 7), nn.Linear(7, 3)

    def forward(self, x):
        h = c = x.new_zeros(len(x), 7)
        for t in range(x.shape[1]):
            xh = torch.cat([x[:, t], h], 1)
            c = torch.lerp(self.g(xh).tanh(), c, self.f(xh).sigmoid())
            h = self.o(xh).sigmoid() * c.tanh()
        return self.fc(h)


@network("minimal gated unit", real(8, 4), "one gate, einsum", constant=True)
class MGU(nn.Module):
    def __init__(self):
        super().__init__()
        self.wf, self.wh = nn.Parameter(torch.randn(7, 11) * 0.3), nn.Parameter(torch.randn(7, 11) * 0.3)
        self.bf, self.bh, self.fc = nn.Parameter(torch.zeros(7)), nn.Parameter(torch.zeros(7)), nn.Linear(7, 3)

    def forward(self, x):
        h = x.new_zeros(len(x), 7)
        for t in range(x.shape[1]):
            f = torch.sigmoid(torch.einsum("oi,bi->bo", self.wf, torch.cat([x[:, t], h], 1)) + self.bf)
            n = torch.tanh(torch.einsum("oi,bi->bo", self.wh, torch.cat([x[:, t], f * h], 1)) + self.bh)
            h = (1.0 - f) * h + f * n
        return self.fc(h)


@network("JANET", real(8, 4), "only a forget gate, 1 - sigmoid(s - beta)", constant=True)
class JANET(nn.Module):
    def __init__(self):
        super().__init__()
        self.s, self.c, self.fc = nn.Linear(11, 7), nn.Linear(11, 7), nn.Linear(7, 3)

    def forward(self, x):
        h = x.new_zeros(len(x), 7)
        for x_t in x.transpose(0, 1):
            xh = torch.hstack([x_t, h])
            s = self.s(xh)
            h = s.sigmoid() * h + (1 - torch.sigmoid(s - 1.0)) * torch.tanh(self.c(xh))
        return self.fc(h)


@network("light GRU", real(8, 4), "ReLU candidate, BatchNorm over time, bidirectional by flip")
class LiGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.u, self.norm = nn.Linear(4, 12, bias=False), nn.Linear(6, 12, bias=False), nn.BatchNorm1d(12)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.cat([x, x.flip(1)], dim=0)
        w = self.w(x)
        w = self.norm(w.reshape(w.shape[0] * w.shape[1], w.shape[2])).reshape(w.shape)
        h = torch.zeros(x.shape[0], 6)
        for k in range(x.shape[1]):
            at, zt = (w[:, k] + self.u(h)).chunk(2, 1)
            zt = torch.sigmoid(zt)
            h = zt * h + (1 - zt) * F.relu(at)
        forward, backward = h.split(len(x) // 2)
        return self.fc(torch.cat([forward, backward], dim=1))


@network("Mogrifier LSTM", real(6, 5), "2 sigmoid(.) x, nn.LSTMCell")
class Mogrifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.q, self.r, self.fc = nn.LSTMCell(5, 7), nn.Linear(7, 5), nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x):
        h, c = x.new_zeros(len(x), 7), x.new_zeros(len(x), 7)
        for t in range(x.size(1)):
            xt = x[:, t]
            for i in range(1, 4):
                if i % 2:
                    xt = (2 * torch.sigmoid(self.q(h))) * xt
                else:
                    h = (2 * torch.sigmoid(self.r(xt))) * h
            h, c = self.cell(xt, (h, c))
        return self.fc(h)
