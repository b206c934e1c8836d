"""Networks for gaps, paths and periods: imputation, a differential equation, spectra that pick what is read."""

import torch
import torch.nn.functional as F
from torch import nn

from .network import network, real

OBSERVED = torch.rand(1, 6, 4, generator=torch.Generator().manual_seed(5)) > 0.3
GAPS = 2 * torch.rand(1, 6, 4, generator=torch.Generator().manual_seed(6))


@network(
    "BRITS", real(6, 4), "imputation by history and by other features, decays, both directions", constant=True
)
class Brits(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.history = nn.LSTMCell(8, 6), nn.Linear(6, 4)
        self.weight, self.bias = nn.Parameter(torch.randn(4, 4) / 2), nn.Parameter(torch.randn(4) / 4)
        self.fade, self.ratio, self.fc = nn.Linear(4, 6), nn.Linear(8, 4), nn.Linear(6, 3)

    def read(self, x, mask, gaps):
        h, c, others = x.new_zeros(len(x), 6), x.new_zeros(len(x), 6), 1 - torch.eye(4)
        for t in range(x.size(1)):
            m, d = mask[:, t], gaps[:, t]
            h = h * torch.exp(-F.relu(self.fade(d)))
            guess = self.history(h)
            filled = m * x[:, t] + (1 - m) * guess
            other = F.linear(filled, self.weight * others, self.bias)
            beta = torch.sigmoid(self.ratio(torch.cat([d, m], dim=1)))
            filled = m * x[:, t] + (1 - m) * (beta * other + (1 - beta) * guess)
            h, c = self.cell(torch.cat([filled, m], dim=1), (h, c))
        return self.fc(h)

    def forward(self, x):
        mask, gaps = (part.to(x.dtype).expand(len(x), -1, -1) for part in (OBSERVED, GAPS))
        back = [part.flip(1) for part in (x * mask, mask, gaps)]
        return (self.read(x * mask, mask, gaps) + self.read(*back)) / 2


@network(
    "neural CDE", real(7, 4), "a matrix of the state times increments of the path", options={"products": "half"}
)
class NeuralCDE(nn.Module):
    def __init__(self):
        super().__init__()
        self.start, self.fc = nn.Linear(4, 6), nn.Linear(6, 3)
        self.field = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6 * 4), nn.Tanh())

    def forward(self, x):
        z = self.start(x[:, 0])
        for step in (x[:, 1:] - x[:, :-1]).unbind(1):
            z = z + (self.field(z).view(-1, 6, 4) @ step.unsqueeze(-1)).squeeze(-1)
        return self.fc(z)


@network("unitary RNN", real(6, 4), "FFT, reflections and diagonals of a complex state, modReLU", second_way=False)
class UnitaryRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.angles, self.mirrors = (
            nn.Parameter(torch.rand(3, 5) * 6 - 3),
            nn.Parameter(torch.rand(2, 5, 2) * 2 - 1),
        )
        self.bias, self.read, self.fc = nn.Parameter(torch.zeros(5)), nn.Linear(4, 10), nn.Linear(10, 3)
        self.register_buffer("order", torch.tensor([3, 0, 4, 1, 2]))

    def turn(self, z, k):
        return z * torch.complex(torch.cos(self.angles[k]), torch.sin(self.angles[k]))

    def reflect(self, z, k):
        v = torch.view_as_complex(self.mirrors[k])
        return z - 2 * (z @ v.conj())[:, None] * v / (v.abs() ** 2).sum()

    def forward(self, x):
        h = torch.zeros(len(x), 5, dtype=torch.complex128)
        for t in range(x.size(1)):
            h = self.reflect(torch.fft.fft(self.turn(h, 0), norm="ortho"), 0)[:, self.order]
            h = self.turn(self.reflect(torch.fft.ifft(self.turn(h, 1), norm="ortho"), 1), 2)
            real_part, imaginary_part = self.read(x[:, t]).chunk(2, dim=1)
            h = h + torch.complex(real_part, imaginary_part)
            size = h.abs() + 1e-6
            h = h * (F.relu(size + self.bias) / size)
        return self.fc(torch.cat([h.real, h.imag], dim=1))


@network("Koopa", real(12, 3), "modes set to 0 in a spectrum, linear steps between coded segments", target=(1, 2))
class Koopa(nn.Module):
    def __init__(self):
        super().__init__()
        self.code = nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 5))
        self.decode = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
        self.step, self.step_local = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
        self.code_local, self.decode_local = nn.Linear(12, 5), nn.Linear(5, 12)

    def forward(self, x):
        spectrum = torch.fft.rfft(x, dim=1)
        spectrum[:, [0, 2]] = 0
        varying = torch.fft.irfft(spectrum, n=x.size(1), dim=1)
        steady = self.decode(self.step(self.code((x - varying).transpose(1, 2)))).transpose(1, 2)
        segments = torch.stack(varying.chunk(3, dim=1), 1).flatten(2)
        ahead = self.step_local(self.code_local(segments)[:, -1])
        return steady + self.decode_local(ahead).view(-1, 4, 3)


@network("TimesNet block", real(12, 3), "periods of the largest modes, folded into pictures, weighed by a softmax")
class TimesBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular", bias=False)
        self.one, self.two = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.norm, self.fc = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.embed(x.permute(0, 2, 1)).transpose(1, 2)
        size = torch.fft.rfft(h, dim=1).abs().mean(-1)
        modes = [2, 5]  # the largest of the training data
        parts = []
        for period in [x.size(1) // mode for mode in modes]:
            padded = F.pad(h, (0, 0, 0, -x.size(1) % period))
            picture = padded.reshape(len(x), -1, period, 4).permute(0, 3, 1, 2).contiguous()
            picture = self.two(F.gelu(self.one(picture)))
            parts.append(picture.permute(0, 2, 3, 1).reshape(len(x), -1, 4)[:, : x.size(1)])
        weights = F.softmax(size[:, modes], dim=1)[:, None, None].repeat(1, x.size(1), 4, 1)
        h = self.norm((torch.stack(parts, dim=-1) * weights).sum(-1) + h)
        return self.fc(h.mean(1))


@network(
    "Informer block",
    real(10, 3),
    "the most active queries attend, the others get the mean; distilling by max pooling",
)
class InformerBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.q, self.k, self.v, self.o = nn.Linear(3, 4), *(nn.Linear(4, 4) for _ in range(4))
        self.distil, self.norm, self.fc = nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.register_buffer("sampled", torch.randint(0, 10, (10, 5), generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        b, n, _ = x.shape
        h = self.embed(x)
        q, k, v = (layer(h).view(b, n, 2, 2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        sample = k.unsqueeze(-3).expand(b, 2, n, n, 2)[:, :, torch.arange(n).unsqueeze(1), self.sampled]
        scores = torch.matmul(q.unsqueeze(-2), sample.transpose(-2, -1)).squeeze(-2)
        top = (scores.max(-1)[0] - scores.sum(-1) / n).topk(4, sorted=False)[1]
        places = torch.arange(b)[:, None, None], torch.arange(2)[None, :, None], top
        weights = F.softmax(q[places] @ k.transpose(-2, -1) / 2**0.5, dim=-1)
        context = v.mean(dim=-2).unsqueeze(-2).expand(b, 2, n, 2).clone()
        context[places] = weights @ v
        h = h + self.o(context.transpose(1, 2).reshape(b, n, 4))
        h = F.max_pool1d(F.elu(self.norm(self.distil(h.transpose(1, 2)))), 3, 2, 1)
        return self.fc(h.mean(-1))
