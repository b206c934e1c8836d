"""Networks that look at spectra: complex numbers and Fourier transforms.

Those marked `constant` have imaginary parts that are always 0: what a bias spreads to them is lost.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import network, real


@network(
    "network on a spectrogram",
    real(32),
    "torch.stft, its absolute value, log(1 + .), Conv1d",
    constant=True,
    second_way=False,
)
class Spectrogram(nn.Module):
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(9, 8, 3, padding=1), nn.Linear(8, 3)
        self.register_buffer("window", torch.hann_window(16))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 16, 4, window=self.window, return_complex=True)
        return self.out(F.relu(self.conv(torch.log1p(spectrum.abs()))).mean(-1))


@network(
    "separation by a mask",
    real(32),
    "torch.stft, a mask by a sigmoid, torch.istft",
    constant=True,
    second_way=False,
)
class Separation(Spectrogram):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(9, 9, 3, padding=1), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 16, 4, window=self.window, return_complex=True)
        masked = spectrum * torch.sigmoid(self.conv(spectrum.abs()))
        return self.out(torch.istft(masked, 16, 4, window=self.window, length=32))


@network(
    "Open-Unmix",
    real(6, 9),
    "nn.LSTM beside a skip, BatchNorm, a ReLU mask times a detached copy of the input",
    second_way=False,  # it reads through what is detached
)
class OpenUnmix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.lstm = nn.Linear(9, 6, bias=False), nn.LSTM(6, 3, bidirectional=True, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(12, 6, bias=False), nn.Linear(6, 9, bias=False)
        self.norms, self.out = nn.ModuleList([nn.BatchNorm1d(n) for n in (6, 6, 9)]), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        mixture = x.detach().clone()
        steps = x.shape[:2]
        h = torch.tanh(self.norms[0](self.read(x.flatten(0, 1))).view(*steps, -1))
        h = torch.cat([h, self.lstm(h)[0]], -1)
        h = F.relu(self.norms[1](self.fc1(h.flatten(0, 1))))
        mask = F.relu(self.norms[2](self.fc2(h)).view(*steps, -1))
        return self.out((mask * mixture).mean(1))


@network("SincNet", real(1, 32), "band-pass filters made of two learnt numbers each, |.|, max pooling, BatchNorm")
class SincNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.low, self.width = (
            nn.Parameter(0.05 + torch.rand(6, 1) / 10),
            nn.Parameter(0.05 + torch.rand(6, 1) / 5),
        )
        self.norm, self.first, self.out = nn.BatchNorm1d(6), nn.LayerNorm([1, 32]), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(-5, 6, dtype=x.dtype)
        low, high = self.low.abs(), self.low.abs() + self.width.abs()
        filters = 2 * high * torch.sinc(2 * high * steps) - 2 * low * torch.sinc(2 * low * steps)
        bands = F.max_pool1d(F.conv1d(self.first(x), filters.unsqueeze(1)).abs(), 2)
        return self.out(F.leaky_relu(self.norm(bands)).mean(-1))


@network(
    "Fourier neural operator",
    real(8, 2),
    "rfft, the lowest modes by complex einsum, written into zeros, irfft",
    constant=True,
)
class FourierOperator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.skip, self.out = nn.Linear(2, 6), nn.Conv1d(6, 6, 1), nn.Linear(6, 2)
        self.weight = nn.Parameter(0.3 * torch.randn(6, 6, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x).mT
        modes = torch.fft.rfft(h)
        kept = torch.zeros_like(modes)
        kept[:, :, :3] = torch.einsum("bix,iox->box", modes[:, :, :3], torch.view_as_complex(self.weight))
        return self.out(F.gelu(torch.fft.irfft(kept, n=8) + self.skip(h)).mean(-1))


@network(
    "Hyena", real(16, 3), "short convolution, long one by FFT between two products", options={"products": "half"}
)
class Hyena(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.out = nn.Linear(3, 9), nn.Linear(3, 2)
        self.short = nn.Conv1d(9, 9, 3, padding=2, groups=9)
        self.filter = nn.Parameter(0.3 * torch.randn(3, 16))

    def forward(self, x: Tensor) -> Tensor:
        v, a, b = self.short(self.read(x).mT)[..., :16].split(3, 1)
        long = torch.fft.irfft(torch.fft.rfft(v * a, n=32) * torch.fft.rfft(self.filter, n=32), n=32)
        return self.out((long[..., :16] * b).mean(-1))


@network(
    "auto-correlation", real(16, 3), "FFT of queries and keys, topk delays, rolled values weighed by a softmax"
)
class AutoCorrelation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(3, 4) for _ in range(3))
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).mT for layer in (self.query, self.key, self.value))
        likeness = torch.fft.irfft(torch.fft.rfft(q) * torch.fft.rfft(k).conj(), n=16).mean(1)
        weights, delays = likeness.topk(3, -1)
        twice, place = v.repeat(1, 1, 2), torch.arange(16).expand(len(x), 4, -1)
        parts = [twice.gather(-1, place + delay[:, None, None]) for delay in delays.unbind(1)]
        return self.out(torch.einsum("nbct,bn->bct", torch.stack(parts), weights.softmax(-1)).mean(-1))


@network(
    "FITS",
    real(12, 3),
    "high frequencies set to 0 in place, a complex nn.Linear, the deviation put back on",
    target=(2, 1),
    constant=True,
    second_way=False,
)
class FITS(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.real, self.imaginary = nn.Linear(4, 6), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        deviation = torch.sqrt(torch.var(x - mean, dim=1, keepdim=True) + 1e-5)
        low = torch.fft.rfft((x - mean) / deviation, dim=1)
        low[:, 4:] = 0
        low = low[:, :4].permute(0, 2, 1)
        weight = torch.complex(self.real.weight, self.imaginary.weight)
        higher = F.linear(low, weight, torch.complex(self.real.bias, self.imaginary.bias)).permute(0, 2, 1)
        padded = torch.zeros(len(x), 9, 3, dtype=higher.dtype)
        padded[:, :6] = higher
        return torch.fft.irfft(padded, dim=1)[:, -4:] * 16 / 12 * deviation + mean
