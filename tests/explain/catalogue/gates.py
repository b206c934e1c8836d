"""Networks of gates: highways, GLUs, TFT's blocks, squeeze and excitation, experts, maxout, graphs in time."""

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real


class GRN(nn.Module):
    """The gated residual network of the temporal fusion transformer."""

    def __init__(self, inputs, outputs, context=None):
        super().__init__()
        self.skip = nn.Linear(inputs, outputs) if inputs != outputs else nn.Identity()
        self.fc1, self.fc2, self.context = (
            nn.Linear(inputs, 8),
            nn.Linear(8, 8),
            nn.Linear(context, 8, bias=False) if context else None,
        )
        self.glu, self.norm = nn.Linear(8, 2 * outputs), nn.LayerNorm(outputs)

    def forward(self, x, context=None):
        h = self.fc1(x)
        if context is not None:
            h = h + self.context(context)
        return self.norm(self.skip(x) + F.glu(self.glu(self.fc2(F.elu(h))), dim=-1))


@network("gated residual network", real(6), "TFT's block: ELU, GLU, LayerNorm, skip")
def gated_residual():
    return nn.Sequential(GRN(6, 8), GRN(8, 8), nn.Linear(8, 3))


@network(
    "TFT without decoder",
    lambda: {"series": real(7, 3)(), "static": real(4)()},
    "variable selection by softmax, static context, nn.LSTM, attention with shared values",
    target=(6, 1),
)
class TFT(nn.Module):
    def __init__(self):
        super().__init__()
        self.static, self.variables = GRN(4, 6), nn.ModuleList([nn.Linear(1, 6) for _ in range(3)])
        self.weights, self.singles = GRN(18, 3, context=6), nn.ModuleList([GRN(6, 6) for _ in range(3)])
        self.h0, self.c0, self.lstm = GRN(6, 6), GRN(6, 6), nn.LSTM(6, 6, batch_first=True)
        self.gate, self.norm, self.attention = (
            nn.Linear(6, 12),
            nn.LayerNorm(6),
            nn.MultiheadAttention(6, 2, batch_first=True),
        )
        self.out = nn.Linear(6, 2)

    def forward(self, series, static):
        s = self.static(static)
        embedded = [layer(series[..., i : i + 1]) for i, layer in enumerate(self.variables)]
        w = torch.softmax(self.weights(torch.cat(embedded, -1), s.unsqueeze(1)), dim=-1).unsqueeze(2)
        v = torch.stack([grn(e) for grn, e in zip(self.singles, embedded, strict=True)], dim=-1)
        selected = (v * w).sum(-1)
        h, _ = self.lstm(selected, (self.h0(s).unsqueeze(0), self.c0(s).unsqueeze(0)))
        h = self.norm(selected + F.glu(self.gate(h)))
        mask = torch.triu(torch.ones(h.size(1), h.size(1), dtype=torch.bool), diagonal=1)
        a, _ = self.attention(h, h, h, attn_mask=mask)
        return self.out(self.norm(h + a))


@network("highway network", real(6), "transform gate t, carry 1 - t")
class Highway(nn.Module):
    def __init__(self):
        super().__init__()
        self.transform, self.gates = (nn.ModuleList([nn.Linear(6, 6) for _ in range(3)]) for _ in range(2))
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        for linear, gate in zip(self.transform, self.gates, strict=True):
            t = torch.sigmoid(gate(x))
            x = t * F.relu(linear(x)) + (1 - t) * x
        return self.fc(x)


@network("gated CNN", real(3, 10), "h * sigmoid(g) of convolutions, residual, scaled by sqrt(.5)")
class GatedCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.convs, self.fc = (
            nn.Conv1d(3, 6, 1),
            nn.ModuleList([nn.Conv1d(6, 12, 3) for _ in range(3)]),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        x = self.first(x)
        for conv in self.convs:
            a, b = conv(F.pad(x, (2, 0))).chunk(2, dim=1)
            x = (x + a * torch.sigmoid(b)) * 0.5**0.5
        return self.fc(x.max(dim=-1).values)


@network("maxout network", real(6), "maximum over pieces", piecewise=True)
class Maxout(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8 * 3), nn.Linear(8, 8 * 2), nn.Linear(8, 3)

    def forward(self, x):
        x = self.fc1(x).view(-1, 8, 3).max(dim=2)[0]
        x = torch.maximum(*self.fc2(x).chunk(2, dim=1))
        return self.fc3(x)


@network(
    "convolutional block attention",
    real(2, 8, 8),
    "channel gate from mean and max, spatial gate from both over channels",
)
class CBAM(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.mlp, self.spatial = (
            nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6)),
            nn.Conv2d(2, 1, 3, padding=1),
        )
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.bn(self.conv(x)))
        channel = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(F.adaptive_max_pool2d(x, 1).flatten(1)))
        x = x * channel[:, :, None, None]
        seen = torch.cat([torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)], dim=1)
        x = x * torch.sigmoid(self.spatial(seen))
        return self.fc(F.adaptive_avg_pool2d(x, (1, 1)).view(x.size(0), -1))


@network("mixture of experts", real(6), "softmax gates, stack of experts, einsum")
class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(
            [nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(4)]
        )
        self.gate = nn.Linear(6, 4)

    def forward(self, x):
        weights = F.softmax(self.gate(x), dim=1)
        return torch.einsum("be,bek->bk", weights, torch.stack([e(x) for e in self.experts], dim=1))


@network(
    "mixture of experts, the best two",
    real(6),
    "topk of the gates, scatter, softmax over the chosen",
)
class SparseExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2, self.gate = (
            nn.Parameter(torch.randn(4, 6, 8) * 0.4),
            nn.Parameter(torch.randn(4, 8, 3) * 0.4),
            nn.Linear(6, 4, bias=False),
        )

    def forward(self, x):
        best, index = self.gate(x).topk(2, dim=-1)
        gates = torch.zeros(x.size(0), 4).scatter(1, index, F.softmax(best, dim=-1))
        hidden = F.relu(torch.einsum("bi,eih->ebh", x, self.w1))
        return torch.einsum("ebh,ehk,be->bk", hidden, self.w2, gates)


@network(
    "spatial gating unit", real(8, 4), "gMLP: product of two signals along time", options={"products": "half"}
)
class GatedMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.sgu, self.spatial, self.down = (
            nn.LayerNorm(4),
            nn.Linear(4, 12),
            nn.LayerNorm(6),
            nn.Conv1d(8, 8, 1),
            nn.Linear(6, 4),
        )
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        u, v = F.gelu(self.up(self.norm(x))).chunk(2, dim=-1)
        x = x + self.down(u * self.spatial(self.sgu(v)))
        return self.fc(x.mean(1))


@network("ST-GCN", real(3, 6, 5), "skeletons: graph convolution by einsum, temporal Conv2d, residual")
class STGCN(nn.Module):
    def __init__(self):
        super().__init__()
        A = torch.eye(5) + torch.diag(torch.ones(4), 1) + torch.diag(torch.ones(4), -1)
        self.register_buffer("A", torch.stack([torch.eye(5), A / A.sum(0)]))
        self.importance, self.data_bn, self.gcn = (
            nn.Parameter(torch.ones(2, 5, 5)),
            nn.BatchNorm1d(15),
            nn.Conv2d(3, 12, 1),
        )
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 6, (3, 1), padding=(1, 0)), nn.BatchNorm2d(6)
        )
        self.residual, self.fcn = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        N, C, T, V = x.size()
        x = (
            self.data_bn(x.permute(0, 3, 1, 2).contiguous().view(N, V * C, T))
            .view(N, V, C, T)
            .permute(0, 2, 3, 1)
            .contiguous()
        )
        y = self.gcn(x).view(N, 2, 6, T, V)
        y = torch.einsum("nkctv,kvw->nctw", (y, self.A * self.importance)).contiguous()
        x = F.relu(self.tcn(y) + self.residual(x))
        return self.fcn(F.avg_pool2d(x, x.size()[2:])).view(N, -1)
