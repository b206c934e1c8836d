"""Convolutional networks for series, some with a recurrent branch."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import weight_norm as weight_norm_by_hook
from torch.nn.utils.parametrizations import weight_norm

from .network import network, real


def block(inputs, outputs, kernel):
    return nn.Sequential(nn.Conv1d(inputs, outputs, kernel, padding="same"), nn.BatchNorm1d(outputs), nn.ReLU())


@network("fully convolutional network", real(2, 16), "Conv1d, BatchNorm, ReLU, mean over time", piecewise=True)
class FCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.fc = nn.Sequential(block(2, 6, 8), block(6, 8, 5), block(8, 6, 3)), nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.layers(x).mean(dim=-1))


class SeriesBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.body = nn.Sequential(
            block(inputs, outputs, 8),
            block(outputs, outputs, 5),
            nn.Conv1d(outputs, outputs, 3, padding=1),
            nn.BatchNorm1d(outputs),
        )
        same = inputs == outputs
        self.shortcut = (
            nn.BatchNorm1d(outputs)
            if same
            else nn.Sequential(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs))
        )

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x))


@network("ResNet for series", real(2, 16), "BatchNorm as a shortcut", piecewise=True)
def series_resnet():
    return nn.Sequential(
        SeriesBlock(2, 6),
        SeriesBlock(6, 8),
        SeriesBlock(8, 8),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


@network("LSTM-FCN", real(12, 2), "nn.LSTM beside Conv1d and BatchNorm")
class LSTMFCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.dropout = nn.LSTM(2, 6, batch_first=True), nn.Dropout(0.8)
        self.conv, self.fc = nn.Sequential(block(2, 6, 8), block(6, 8, 5), block(8, 6, 3)), nn.Linear(12, 3)

    def forward(self, x):
        _, (ht, _) = self.lstm(x)
        y = torch.mean(self.conv(x.transpose(2, 1)), 2)
        return self.fc(torch.cat((y, self.dropout(ht[-1])), dim=1))


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, 2, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(2, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        b, c, _ = x.size()
        y = F.adaptive_avg_pool1d(x, 1).view(b, c)
        return x * self.fc(y).view(b, c, 1).expand_as(x)


@network("GRU-FCN", real(2, 12), "nn.GRU with dimensions shuffled, squeeze-and-excite blocks")
class GRUFCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(12, 6, batch_first=True)
        self.conv = nn.Sequential(
            block(2, 6, 8), SqueezeExcite(6), block(6, 8, 5), SqueezeExcite(8), block(8, 6, 3)
        )
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        _, h = self.gru(x)
        return self.fc(torch.cat([h.squeeze(0), F.adaptive_avg_pool1d(self.conv(x), 1).squeeze(-1)], 1))


class Inception(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.bottleneck = nn.Conv1d(inputs, 4, 1, bias=False)
        self.convs = nn.ModuleList([nn.Conv1d(4, 3, k, padding=k // 2, bias=False) for k in (9, 5, 3)])
        self.pool = nn.Sequential(nn.MaxPool1d(3, stride=1, padding=1), nn.Conv1d(inputs, 3, 1, bias=False))
        self.bn = nn.BatchNorm1d(12)

    def forward(self, x):
        z = self.bottleneck(x)
        return F.relu(self.bn(torch.cat([conv(z) for conv in self.convs] + [self.pool(x)], dim=1)))


@network(
    "InceptionTime", real(2, 16), "cat of convolutions and max pooling before BatchNorm, residual", piecewise=True
)
class InceptionTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Inception(2), Inception(12), Inception(12)])
        self.shortcut, self.fc = (
            nn.Sequential(nn.Conv1d(2, 12, 1, bias=False), nn.BatchNorm1d(12)),
            nn.Linear(12, 3),
        )

    def forward(self, x):
        res = x
        for inception in self.blocks:
            x = inception(x)
        return self.fc(torch.mean(F.relu(x + self.shortcut(res)), dim=2))


class TemporalBlock(nn.Module):
    def __init__(self, inputs, outputs, dilation, norm):
        super().__init__()
        padding = 2 * dilation
        self.padding = padding
        self.conv1 = norm(nn.Conv1d(inputs, outputs, 3, padding=padding, dilation=dilation))
        self.conv2 = norm(nn.Conv1d(outputs, outputs, 3, padding=padding, dilation=dilation))
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None
        self.dropout, self.relu = nn.Dropout(0.2), nn.ReLU()

    def forward(self, x):
        out = self.dropout(self.relu(self.conv1(x)[:, :, : -self.padding].contiguous()))
        out = self.dropout(self.relu(self.conv2(out)[:, :, : -self.padding].contiguous()))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class TCN(nn.Module):
    def __init__(self, norm=weight_norm):
        super().__init__()
        self.network = nn.Sequential(
            TemporalBlock(2, 6, 1, norm), TemporalBlock(6, 6, 2, norm), TemporalBlock(6, 6, 4, norm)
        )
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(self.network(x)[:, :, -1])


network("TCN", real(2, 16), "dilated causal Conv1d, weight norm as a parametrization, chomp", piecewise=True)(TCN)
network("TCN, old weight norm", real(2, 16), "weight norm by a hook", piecewise=True)(
    lambda: TCN(weight_norm_by_hook)
)


@network(
    "WaveNet",
    real(1, 16),
    "tanh times sigmoid, dilation, skip sums",
    target=lambda out: out[:, :, -1].max(1).values,
)
class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.causal = nn.Conv1d(1, 6, 2, padding=1)
        self.filters, self.gates = (
            nn.ModuleList([nn.Conv1d(6, 6, 2, dilation=d) for d in (1, 2, 4)]) for _ in range(2)
        )
        self.residual, self.skip = (nn.ModuleList([nn.Conv1d(6, 6, 1) for _ in range(3)]) for _ in range(2))
        self.end1, self.end2 = nn.Conv1d(6, 6, 1), nn.Conv1d(6, 8, 1)

    def forward(self, x):
        x, skips = self.causal(x)[:, :, :-1], 0
        for i in range(3):
            seen = F.pad(x, (self.filters[i].dilation[0], 0))
            z = torch.tanh(self.filters[i](seen)) * torch.sigmoid(self.gates[i](seen))
            skips = self.skip[i](z) + skips
            x = self.residual[i](z) + x
        return self.end2(F.relu(self.end1(F.relu(skips))))


class MaskBlock(nn.Module):
    def __init__(self, dilation):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(6, 8, 1),
            nn.PReLU(),
            nn.GroupNorm(1, 8),
            nn.Conv1d(8, 8, 3, padding=dilation, dilation=dilation, groups=8),
            nn.PReLU(),
            nn.GroupNorm(1, 8),
            nn.Conv1d(8, 6, 1),
        )

    def forward(self, x):
        return x + self.net(x)


@network(
    "Conv-TasNet",
    real(1, 32),
    "encoder, GroupNorm, PReLU, masks by sigmoid, transposed convolution",
    target=lambda out: out[:, 0, 10:14].sum(-1),
)
class ConvTasNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = (
            nn.Conv1d(1, 8, 8, stride=4, bias=False),
            nn.ConvTranspose1d(8, 1, 8, stride=4, bias=False),
        )
        self.separator = nn.Sequential(
            nn.GroupNorm(1, 8, eps=1e-8),
            nn.Conv1d(8, 6, 1),
            MaskBlock(1),
            MaskBlock(2),
            nn.PReLU(),
            nn.Conv1d(6, 16, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        w = F.relu(self.encoder(x))
        masked = self.separator(w).view(len(x), 2, 8, -1) * w.unsqueeze(1)
        return self.decoder(masked.view(len(x) * 2, 8, -1)).view(len(x), 2, -1)
