"""Forecasting networks: what they explain is one number of the forecast."""

import torch
import torch.nn.functional as F
from torch import nn

from .network import BATCH, network, real


class Block(nn.Module):
    def __init__(self, size, theta):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(size, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.b, self.f = nn.Linear(8, theta, bias=False), nn.Linear(8, theta, bias=False)
        steps = torch.arange(size + 4) / size
        self.register_buffer("basis", torch.stack([steps**p for p in range(theta)]))

    def forward(self, x):
        hidden = self.fc(x)
        return self.b(hidden) @ self.basis[:, : x.shape[1]], self.f(hidden) @ self.basis[:, x.shape[1] :]


@network("N-BEATS", real(10), "doubly residual stacks, polynomial basis", piecewise=True)
class NBEATS(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(10, 3) for _ in range(4)])

    def forward(self, x):
        forecast = torch.zeros(x.size(0), 4)
        for block in self.blocks:
            backcast, ahead = block(x)
            x = x - backcast
            forecast = forecast + ahead
        return forecast


@network("N-HiTS", real(16), "max pooling of the past, interpolation of the forecast", piecewise=True)
class NHiTS(nn.Module):
    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(
            [nn.Sequential(nn.Linear(16 // k, 8), nn.ReLU(), nn.Linear(8, 16 + 8 // k)) for k in (4, 2, 1)]
        )

    def forward(self, y):
        residuals, forecast = y.flip(dims=(-1,)), y[:, -1:].repeat(1, 8)
        for net, k in zip(self.nets, (4, 2, 1), strict=True):
            theta = net(F.max_pool1d(residuals.unsqueeze(1), k, ceil_mode=True).squeeze(1))
            residuals = residuals - theta[:, :16]
            forecast = forecast + F.interpolate(theta[:, None, 16:], size=8, mode="linear")[:, 0]
        return forecast


@network(
    "DLinear", real(12, 3), "moving average by replicated ends and average pooling", target=(2, 1), piecewise=True
)
class DLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.avg, self.season, self.trend = nn.AvgPool1d(5, stride=1), nn.Linear(12, 4), nn.Linear(12, 4)

    def forward(self, x):
        front, end = x[:, 0:1, :].repeat(1, 2, 1), x[:, -1:, :].repeat(1, 2, 1)
        trend = self.avg(torch.cat([front, x, end], dim=1).permute(0, 2, 1))
        seasonal = x.permute(0, 2, 1) - trend
        return (self.season(seasonal) + self.trend(trend)).permute(0, 2, 1)


@network(
    "reversible normalisation",
    real(12, 2),
    "mean and deviation taken off the input, put back on the output",
    target=(1, 0),
)
class RevIN(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias, self.linear = (
            nn.Parameter(torch.ones(2)),
            nn.Parameter(torch.zeros(2)),
            nn.Linear(12, 4),
        )

    def forward(self, x):
        mean = x.mean(1, keepdim=True).detach()
        std = torch.sqrt(torch.var(x, dim=1, keepdim=True, unbiased=False) + 1e-5).detach()
        x = (x - mean) / std * self.weight + self.bias
        y = self.linear(x.transpose(1, 2)).transpose(1, 2)
        return (y - self.bias) / self.weight * std + mean


@network(
    "DeepAR", real(9, 3), "nn.LSTM, mean and softplus deviation in a dict", target=lambda out: out["loc"][:, -1]
)
class DeepAR(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.mu, self.sigma = nn.LSTM(3, 6, 2, batch_first=True), nn.Linear(6, 1), nn.Linear(6, 1)

    def forward(self, x):
        h, _ = self.lstm(x)
        return {"loc": self.mu(h).squeeze(-1), "scale": F.softplus(self.sigma(h)).squeeze(-1)}


@network("LSTNet", real(12, 3), "Conv2d, nn.GRU, recurrent skips by view and permute, autoregression beside")
class LSTNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gru, self.skip = nn.Conv2d(1, 5, (3, 3)), nn.GRU(5, 6), nn.GRU(5, 4)
        self.linear, self.highway, self.dropout = nn.Linear(6 + 2 * 4, 3), nn.Linear(4, 1), nn.Dropout(0.2)

    def forward(self, x):
        b = x.size(0)
        c = torch.squeeze(self.dropout(F.relu(self.conv(x.view(-1, 1, 12, 3)))), 3)
        _, r = self.gru(c.permute(2, 0, 1).contiguous())
        s = c[:, :, -10:].contiguous().view(b, 5, 5, 2).permute(2, 0, 3, 1).contiguous().view(5, b * 2, 5)
        _, s = self.skip(s)
        res = self.linear(torch.cat((self.dropout(torch.squeeze(r, 0)), s.view(b, 2 * 4)), 1))
        z = self.highway(x[:, -4:, :].permute(0, 2, 1).contiguous().view(-1, 4)).view(-1, 3)
        return res + z


@network("DA-RNN", real(7, 4), "attention over inputs and over time, nn.LSTMCell", target=0)
class DARNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.cell = nn.Linear(2 * 6 + 7, 1), nn.LSTMCell(4, 6)
        self.temporal = nn.Sequential(nn.Linear(6 + 6, 6), nn.Tanh(), nn.Linear(6, 1))
        self.decoder, self.fc = nn.LSTMCell(6, 6), nn.Linear(12, 1)

    def forward(self, x):
        h, s = x.new_zeros(len(x), 6), x.new_zeros(len(x), 6)
        encoded = torch.zeros(x.size(0), 7, 6)
        for t in range(7):
            seen = torch.cat(
                (h.repeat(4, 1, 1).permute(1, 0, 2), s.repeat(4, 1, 1).permute(1, 0, 2), x.permute(0, 2, 1)), dim=2
            )
            weights = F.softmax(self.attn(seen.view(-1, 19)).view(-1, 4), dim=1)
            h, s = self.cell(torch.mul(weights, x[:, t, :]), (h, s))
            encoded[:, t, :] = h
        d, c = x.new_zeros(len(x), 6), x.new_zeros(len(x), 6)
        for _ in range(3):
            scores = self.temporal(torch.cat([d.unsqueeze(1).expand(-1, 7, -1), encoded], 2)).squeeze(2)
            context = torch.bmm(F.softmax(scores, 1).unsqueeze(1), encoded)[:, 0, :]
            d, c = self.decoder(context, (d, c))
        return self.fc(torch.cat((d, context), dim=1))


@network("TiDE", lambda: (real(12)(), real(16, 2)()), "two inputs, residual MLP with LayerNorm", target=3)
class TiDE(nn.Module):
    def __init__(self):
        super().__init__()
        self.feature, self.skip = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), nn.Linear(12, 4)
        self.dense, self.residual, self.norm = (
            nn.Sequential(nn.Linear(28, 8), nn.ReLU(), nn.Linear(8, 4)),
            nn.Linear(28, 4),
            nn.LayerNorm(4),
        )

    def forward(self, past, covariates):
        seen = torch.cat([past, self.feature(covariates).squeeze(-1)], dim=-1)
        return self.norm(self.dense(seen) + self.residual(seen)) + self.skip(past)


@network("TSMixer", real(8, 4), "MLPs along time and along channels, BatchNorm over both", target=(1, 2))
class TSMixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm1d(8 * 4) for _ in range(2)])
        self.time, self.channels = nn.Linear(8, 8), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        y = self.norms[0](x.flatten(1)).view_as(x)
        x = x + F.relu(self.time(y.mT)).mT
        x = x + self.channels(self.norms[1](x.flatten(1)).reshape(x.shape))
        return self.head(x.swapaxes(1, 2)).swapaxes(1, 2)


@network(
    "two sources",
    lambda: {"series": real(8, 3)(), "static": real(4)()},
    "nn.GRU and MLP, keyword inputs, dict output",
    target=lambda out: out["logits"][:, 1],
    arguments=lambda: {"scale": torch.rand(BATCH, 1) + 0.5},
)
class TwoSources(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.mlp = nn.GRU(3, 6, batch_first=True), nn.Sequential(nn.Linear(4, 6), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, series, static, scale):
        _, h = self.gru(series * scale.unsqueeze(-1))
        features = torch.cat([h[0], self.mlp(static)], dim=1)
        logits = self.head(features)
        return {"logits": logits, "probabilities": logits.softmax(-1), "features": features}
