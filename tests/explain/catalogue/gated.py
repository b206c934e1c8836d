"""Recurrent networks whose gates are made in unusual ways: by another network, in order, by rounding, by competition."""

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real


@network(
    "HyperLSTM", real(5, 4), "a small nn.LSTMCell scales the rows of all matrices", options={"products": "half"}
)
class HyperLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.hyper = nn.LSTMCell(4 + 6, 5)
        self.zh, self.zx, self.zb = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(5, 8, bias=False)
        self.dh = nn.ModuleList([nn.Linear(2, 6, bias=False) for _ in range(4)])
        self.dx = nn.ModuleList([nn.Linear(2, 6, bias=False) for _ in range(4)])
        self.db = nn.ModuleList([nn.Linear(2, 6) for _ in range(4)])
        self.wh = nn.ParameterList([nn.Parameter(torch.randn(6, 6) / 2) for _ in range(4)])
        self.wx = nn.ParameterList([nn.Parameter(torch.randn(6, 4) / 2) for _ in range(4)])
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        h = c = x.new_zeros(len(x), 6)
        state = None
        for step in x.unbind(1):
            state = self.hyper(torch.cat((step, h), dim=-1), state)
            zh, zx, zb = (z(state[0]).chunk(4, dim=-1) for z in (self.zh, self.zx, self.zb))
            gates = []
            for k in range(4):
                y = self.dh[k](zh[k]) * torch.einsum("ij,bj->bi", self.wh[k], h)
                y = y + self.dx[k](zx[k]) * torch.einsum("ij,bj->bi", self.wx[k], step) + self.db[k](zb[k])
                gates.append(y)
            i, f, g, o = gates
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.fc(h)


@network("ordered-neurons LSTM", real(6, 4), "master gates: cumsum of a softmax, their overlap")
class OrderedLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.ih, self.hh, self.fc = nn.Linear(4, 4 * 6 + 2 * 3), nn.Linear(6, 4 * 6 + 2 * 3), nn.Linear(6, 3)

    def forward(self, x):
        h, c = x.new_zeros(len(x), 6), x.new_zeros(len(x), 3, 2)
        transformed = self.ih(x)
        for t in range(x.size(1)):
            gates = transformed[:, t] + self.hh(h)
            keep, write = gates[:, :6].chunk(2, 1)
            keep = torch.cumsum(F.softmax(keep, dim=-1), dim=-1)[:, :, None]
            write = (1 - torch.cumsum(F.softmax(write, dim=-1), dim=-1))[:, :, None]
            o, cell, i, f = gates[:, 6:].view(-1, 12, 2).chunk(4, 1)
            o, cell, i, f = o.sigmoid(), cell.tanh(), i.sigmoid(), f.sigmoid()
            overlap = keep * write
            c = (f * overlap + (keep - overlap)) * c + (i * overlap + (write - overlap)) * cell
            h = (o * torch.tanh(c)).view(-1, 6)
        return self.fc(h)


@network("skip RNN", real(8, 4), "rounded update gate, accumulated by the smaller of two")
class SkipRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.update, self.fc = nn.GRUCell(4, 6), nn.Linear(6, 1), nn.Linear(6, 3)

    def forward(self, x):
        h, due = x.new_zeros(len(x), 6), x.new_ones(len(x), 1)
        for t in range(x.size(1)):
            u = torch.round(due)
            h = u * self.cell(x[:, t], h) + (1 - u) * h
            more = torch.sigmoid(self.update(h) - 1)
            due = u * more + (1 - u) * torch.min(due + more, torch.ones_like(due))
        return self.fc(h)


class Level(nn.Module):
    """A level of the hierarchical multiscale LSTM: copies, updates or flushes its cell."""

    def __init__(self, below, units, above):
        super().__init__()
        self.units = units
        self.up, self.own = nn.Linear(below, 4 * units + 1), nn.Linear(units, 4 * units + 1, bias=False)
        self.down = nn.Linear(above, 4 * units + 1, bias=False) if above else None

    def forward(self, c, below, h, above, z, z_below):
        s = self.own(h) + z_below * self.up(below)
        if self.down is not None:
            s = s + z * self.down(above)
        f, i, o, g, boundary = s.split([*[self.units] * 4, 1], 1)
        f, i, o, g = torch.sigmoid(f), torch.sigmoid(i), torch.sigmoid(o), torch.tanh(g)
        flush, copy, update = z, (1 - z) * (1 - z_below), (1 - z) * z_below
        c = flush * (i * g) + copy * c + update * (f * c + i * g)
        h = copy * h + (flush + update) * o * torch.tanh(c)
        return h, c, (torch.clamp((boundary + 1) / 2, 0, 1) > 0.5).to(h.dtype)


@network("hierarchical multiscale LSTM", real(6, 4), "binary boundaries: copy, update or flush, two levels")
class HierarchicalLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.fc = Level(4, 5, 6), Level(5, 6, None), nn.Linear(11, 3)

    def forward(self, x):
        one = x.new_ones(len(x), 1)
        h1 = c1 = x.new_zeros(len(x), 5)
        h2 = c2 = x.new_zeros(len(x), 6)
        z1 = z2 = x.new_zeros(len(x), 1)
        for t in range(x.size(1)):
            h1, c1, z1 = self.one(c1, x[:, t], h1, h2, z1, one)
            h2, c2, z2 = self.two(c2, h1, h2, None, z2, z1)
        return self.fc(torch.cat((h1, h2), 1))


@network(
    "recurrent independent mechanisms",
    real(5, 4),
    "topk modules are updated, a matrix each by einsum, zeros to attend to",
    constant=True,
)
class Mechanisms(nn.Module):
    def __init__(self):
        super().__init__()
        self.key, self.value, self.query = nn.Linear(4, 5), nn.Linear(4, 5), nn.Parameter(torch.randn(3, 6, 5) / 2)
        self.ih, self.hh = nn.Parameter(torch.randn(3, 5, 24) / 2), nn.Parameter(torch.randn(3, 6, 24) / 2)
        self.q, self.k, self.v, self.fc = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(6, 6), nn.Linear(18, 3)

    def forward(self, x):
        h = c = x.new_zeros(len(x), 3, 6)
        for t in range(x.size(1)):
            step = torch.stack([x[:, t], torch.zeros_like(x[:, t])], dim=1)
            query = torch.einsum("bnh,nhk->bnk", h, self.query)
            scores = F.softmax(query @ self.key(step).transpose(1, 2) / 5**0.5, dim=-1)
            chosen = torch.topk(scores[:, :, 0], 2, dim=1).indices
            mask = torch.zeros(len(x), 3).scatter_(1, chosen, 1.0).unsqueeze(2)
            gates = torch.einsum("bnk,nkg->bng", scores @ self.value(step), self.ih)
            i, f, g, o = (gates + torch.einsum("bnh,nhg->bng", h, self.hh)).chunk(4, dim=2)
            new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            new_h = o.sigmoid() * new_c.tanh()
            weights = F.softmax(self.q(new_h) @ self.k(new_h).transpose(1, 2) / 5**0.5, dim=-1)
            new_h = new_h + weights @ self.v(new_h)
            h, c = mask * new_h + (1 - mask) * h, mask * new_c + (1 - mask) * c
        return self.fc(h.flatten(1))


@network(
    "LSTM by hand (activated together)",
    real(8, 4),
    "sigmoid of three gates at once, cat, then chunk",
    second_way=False,
)
class TogetherLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates, self.fc = nn.Linear(4 + 6, 4 * 6), nn.Linear(6, 3)

    def forward(self, x):
        h, c = x.new_zeros(len(x), 6), x.new_zeros(len(x), 6)
        for t in range(x.size(1)):
            gates = self.gates(torch.cat([x[:, t], h], dim=1))
            gates = torch.cat([torch.sigmoid(gates[:, :18]), torch.tanh(gates[:, 18:])], dim=1)
            i, f, o, g = gates.chunk(4, dim=1)
            c = f * c + i * g
            h = o * torch.tanh(c)
        return self.fc(h)


@network(
    "phased LSTM",
    lambda: (torch.randn(3, 6, 3), 4 * torch.rand(3, 6, 1)),
    "openness of a learnt period, by remainder and two nested torch.where of the given times",
    constant=True,
    second_way=False,
)
class PhasedLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.fc = nn.LSTMCell(3, 6), nn.Linear(6, 3)
        self.period, self.shift = nn.Parameter(1 + torch.rand(6)), nn.Parameter(torch.rand(6))

    def forward(self, x, times):
        h = c = x.new_zeros(len(x), 6)
        for t in range(x.size(1)):
            phase = ((times[:, t] - self.shift) % self.period / self.period).detach()
            open_ = torch.where(phase < 0.2, 5 * phase, torch.where(phase < 0.4, 2 - 5 * phase, 0.001 * phase))
            new_h, new_c = self.cell(x[:, t], (h, c))
            h, c = open_ * new_h + (1 - open_) * h, open_ * new_c + (1 - open_) * c
        return self.fc(h)
