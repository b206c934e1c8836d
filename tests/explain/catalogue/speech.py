"""Networks for sound, signals and handwriting: convolutions in front of recurrence, raw waves, brain signals."""

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real


@network("CRDNN", real(12, 8), "Conv2d, LayerNorm, LeakyReLU, time pooling, nn.LSTM, BatchNorm", target=(1, 2))
class CRDNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm1, self.norm2 = nn.LayerNorm([8, 3]), nn.LayerNorm([8, 3])
        self.rnn = nn.LSTM(12, 6, num_layers=2, bidirectional=True, batch_first=True, dropout=0.15)
        self.dnn1, self.bn, self.dnn2 = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x):
        x = x.unsqueeze(1)
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = F.leaky_relu(norm(conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        x = F.max_pool2d(x, (1, 2)).transpose(1, 2)
        x = F.max_pool1d(x.reshape(x.shape[0], x.shape[1], -1).transpose(1, 2), 4).transpose(1, 2)
        x, _ = self.rnn(x)
        x = F.leaky_relu(self.bn(self.dnn1(x).transpose(1, 2)).transpose(1, 2))
        return self.dnn2(x)


class SequenceWise(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        t, n = x.size(0), x.size(1)
        return self.module(x.view(t * n, -1)).view(t, n, -1)


@network(
    "DeepSpeech 2",
    real(1, 8, 14),
    "Hardtanh(0, 20), masked convolution, BatchNorm, nn.GRU, sum of directions",
    target=(2, 1),
    arguments=lambda: {"lengths": torch.tensor([14, 10, 12])},
    constant=True,
)
class DeepSpeech2(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 3, (5, 3), stride=(2, 2), padding=(2, 1)),
            nn.BatchNorm2d(3),
            nn.Hardtanh(0, 20, inplace=True),
            nn.Conv2d(3, 3, (3, 3), stride=(2, 1), padding=(1, 1)),
            nn.BatchNorm2d(3),
            nn.Hardtanh(0, 20, inplace=True),
        )
        self.rnn1, self.rnn2 = (
            nn.GRU(6, 6, bidirectional=True, bias=True),
            nn.GRU(6, 6, bidirectional=True, bias=True),
        )
        self.norm, self.fc = (
            SequenceWise(nn.BatchNorm1d(6)),
            nn.Sequential(SequenceWise(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5, bias=False)))),
        )

    def forward(self, x, lengths):
        lengths = (lengths + 1) // 2
        for module in self.conv:
            x = module(x)
            mask = torch.zeros(x.size(), dtype=torch.bool)
            for i, length in enumerate(lengths.tolist()):
                mask[i, :, :, length:] = True
            x = x.masked_fill(mask, 0)
        sizes = x.size()
        x = x.view(sizes[0], sizes[1] * sizes[2], sizes[3]).transpose(1, 2).transpose(0, 1).contiguous()
        for norm, rnn in ((None, self.rnn1), (self.norm, self.rnn2)):
            x, _ = rnn(x if norm is None else norm(x))
            x = x.view(x.size(0), x.size(1), 2, -1).sum(2).view(x.size(0), x.size(1), -1)
        return self.fc(x).transpose(0, 1)


@network(
    "CRNN for handwriting",
    real(1, 8, 16),
    "Conv2d to columns, bidirectional nn.LSTM, output (B, T, K)",
    target=(3, 1),
)
class CRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 4, 3, 1, 1),
            nn.ReLU(True),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(4, 6, 3, 1, 1),
            nn.BatchNorm2d(6),
            nn.ReLU(True),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            nn.Conv2d(6, 6, 2),
            nn.ReLU(True),
        )
        self.rnn, self.embedding = nn.LSTM(6, 5, bidirectional=True), nn.Linear(10, 4)

    def forward(self, x):
        conv = self.cnn(x)
        assert conv.size(2) == 1
        recurrent, _ = self.rnn(conv.squeeze(2).permute(2, 0, 1))
        T, b, h = recurrent.size()
        return self.embedding(recurrent.view(T * b, h)).view(T, b, -1).transpose(0, 1)


@network("CNN-LSTM for video", real(4, 1, 8, 8), "time folded into the batch, nn.LSTM, last step")
class VideoLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU()
        )
        self.lstm, self.fc = nn.LSTM(8, 6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        b, t = x.shape[:2]
        features = self.cnn(x.view(-1, *x.shape[2:])).view(b, t, -1)
        return self.fc(self.lstm(features)[0][:, -1])


@network("CNN-LSTM for series", real(16, 3), "Conv1d, max pooling, nn.LSTM")
class SeriesLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(3, 6, 5, padding=2), nn.Conv1d(6, 6, 3, padding=1)
        self.pool, self.lstm, self.fc = nn.MaxPool1d(2), nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        x = self.pool(F.elu(self.conv1(x.permute(0, 2, 1))))
        x = self.pool(F.relu(self.conv2(x)))
        return self.fc(self.lstm(x.permute(0, 2, 1))[0][:, -1, :])


@network("DeepConvLSTM", real(12, 3), "Conv2d along time, two nn.LSTM, attention over time", target=None)
class DeepConvLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(n, 4, (3, 1)) for n in (1, 4, 4)])
        self.lstm, self.attn, self.fc = nn.LSTM(12, 6, 2), nn.Linear(6, 1), nn.Linear(6, 3)

    def forward(self, x):
        x = x.unsqueeze(1)
        for conv in self.convs:
            x = F.relu_(conv(x))
        x = x.permute(2, 0, 3, 1).reshape(x.shape[2], x.shape[0], -1)
        x, _ = self.lstm(x)
        weights = F.softmax(torch.tanh(self.attn(x)), dim=0)
        return self.fc(torch.einsum("tbo,tbh->bh", weights, x))


@network("pyramidal listener", real(8, 4), "pairs of steps joined between nn.LSTMs")
class Listener(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.LSTM(8, 5, bidirectional=True, batch_first=True),
                nn.LSTM(20, 5, bidirectional=True, batch_first=True),
            ]
        )
        self.fc = nn.Linear(10, 3)

    def forward(self, x):
        for rnn in self.layers:
            b, t, d = x.shape
            x, _ = rnn(x.contiguous().view(b, t // 2, d * 2))
        return self.fc(x.mean(1))


@network("M5", real(1, 64), "raw waves: strided Conv1d, BatchNorm, max pooling", piecewise=True)
class M5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.pool1 = nn.Conv1d(1, 4, 16, stride=4), nn.BatchNorm1d(4), nn.MaxPool1d(2)
        self.conv2, self.bn2, self.pool2 = nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.MaxPool1d(2)
        self.fc1 = nn.Linear(6, 3)

    def forward(self, x):
        x = self.pool1(F.relu(self.bn1(self.conv1(x))))
        x = self.pool2(F.relu(self.bn2(self.conv2(x))))
        return self.fc1(F.avg_pool1d(x, x.shape[-1]).permute(0, 2, 1)).squeeze(1)


@network("EEGNet", real(1, 4, 32), "depthwise and separable Conv2d, BatchNorm without ReLU, ELU")
def eegnet():
    return nn.Sequential(
        nn.Conv2d(1, 4, (1, 8), padding="same", bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 8, (4, 1), groups=4, bias=False),
        nn.BatchNorm2d(8),
        nn.ELU(),
        nn.AvgPool2d((1, 4)),
        nn.Dropout(0.25),
        nn.Conv2d(8, 8, (1, 4), padding="same", groups=8, bias=False),
        nn.Conv2d(8, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ELU(),
        nn.AvgPool2d((1, 4)),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


@network("wave encoder", real(1, 48), "GroupNorm, GELU, positional convolution with weight norm, LayerNorm")
class WaveEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv1d(1, 6, 8, stride=4, bias=False),
            nn.GroupNorm(6, 6),
            nn.GELU(),
            nn.Conv1d(6, 6, 3, stride=2, bias=False),
            nn.GELU(),
        )
        self.norm, self.project = nn.LayerNorm(6), nn.Linear(6, 8)
        self.position, self.fc = (
            nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 4, padding=2, groups=2), dim=2),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        x = self.project(self.norm(self.front(x).transpose(1, 2)))
        x = x + F.gelu(self.position(x.transpose(1, 2))[:, :, :-1]).transpose(1, 2)
        return self.fc(F.instance_norm(x.transpose(1, 2)).amax(-1))


def swoosh(x):
    return torch.logaddexp(torch.zeros(()), x - 1) - 0.08 * x - 0.313261687


@network(
    "Zipformer block",
    real(6, 4),
    "Swoosh by logaddexp, BiasNorm, attention weights used twice, bypass, downsampling by a softmax",
    options={"products": "half"},
    constant=True,
    second_way=False,
)
class Zipformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)
        self.query, self.value, self.non_linear, self.mix = (nn.Linear(4, n) for n in (8, 4, 12, 4))
        self.into, self.conv, self.back = nn.Linear(4, 8), nn.Conv1d(4, 4, 3, padding=1, groups=4), nn.Linear(4, 4)
        self.bypass, self.shift, self.weights = (nn.Parameter(torch.rand(n)) for n in (4, 4, 2))
        self.scale, self.fc = nn.Parameter(torch.tensor(0.3)), nn.Linear(4, 3)

    def forward(self, x):
        query, key = self.query(x).chunk(2, -1)
        attention = torch.softmax(query @ key.mT, -1)
        y = x + self.second(swoosh(self.first(x)))
        s, t, u = self.non_linear(y).chunk(3, -1)
        y = y + self.mix(attention @ (s * torch.tanh(t)) * u)
        y = y + attention @ self.value(y)
        signal, gate = self.into(y).chunk(2, -1)
        y = y + self.back(swoosh(self.conv((signal * gate.sigmoid()).mT).mT))
        y = x + (y - x) * self.bypass
        y = y * torch.mean((y - self.shift) ** 2, -1, keepdim=True) ** -0.5 * self.scale.exp()
        y = (y.unflatten(1, (-1, 2)) * self.weights.softmax(0)[:, None]).sum(2)
        return self.fc(y.mean(1))
