"""Networks and methods whose relevance is differentiated once more, and what it is compared with."""

import torch
from torch import Tensor, nn

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    DeepTaylor,
    Epsilon,
    Flat,
    Gamma,
    WSquare,
    ZPlus,
)

STEP = 1e-6


class Recurrence(nn.Module):
    """One layer, called at each step: h = relu(W x_t + U h)."""

    def __init__(self) -> None:
        super().__init__()
        self.drive, self.back, self.out = nn.Linear(4, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), 5, dtype=x.dtype)
        for t in range(x.shape[1]):
            h = torch.relu(self.drive(x[:, t]) + self.back(h))
        return self.out(h)


class GatedCell(nn.Module):
    """An LSTM's step by hand, with a learnt start."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.out = nn.Linear(9, 20), nn.Linear(5, 3)
        self.start = nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.start.expand(len(x), 5), torch.zeros(len(x), 5, dtype=x.dtype)
        for t in range(x.shape[1]):
            i, f, g, o = self.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)


class Last(nn.Module):
    """The last step of a recurrent module, read out."""

    def __init__(self, recurrent: nn.Module, width: int) -> None:
        super().__init__()
        self.recurrent, self.out = recurrent, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.recurrent(x)[0][:, -1])


class Written(nn.Module):
    """Parts of tensors are overwritten, and what shared their memory is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x.flatten(1)[:, :4])
        before, other = h[:, :3], h.t()
        h.relu_()
        h[:, 4:] = 0
        before += self.two(h)[:, 3:].relu()
        scale = torch.ones(6, dtype=x.dtype)
        scale[1:4] = self.scale[1:4]
        scale.mul_(self.scale)
        return self.out(other.t() * scale)


class NotWritten(Written):
    """The same without overwriting."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x.flatten(1)[:, :4]).relu()
        h = torch.cat([h[:, :4], torch.zeros_like(h[:, 4:])], 1)
        h = torch.cat([h[:, :3] + self.two(h)[:, 3:].relu(), h[:, 3:]], 1)
        scale = torch.cat([torch.ones(1), self.scale[1:4], torch.ones(2)]).to(x.dtype) * self.scale
        return self.out(h * scale)


class Attention(nn.Module):
    """A transformer's block, and its mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.block = nn.Linear(4, 8), nn.TransformerEncoderLayer(8, 2, 6, dropout=0.0, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.block(self.up(x)).mean(1))


def feed_forward(inplace: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 6), nn.ReLU(inplace), nn.Linear(6, 5), nn.ReLU(inplace), nn.Linear(5, 3)
    )


def convolution() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Conv2d(5, 6, 2),
        nn.ReLU(), nn.AvgPool2d((1, 2)), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


NETWORKS = {
    "feed-forward": feed_forward,
    "shared layer": Recurrence,
    "convolution and max pooling": convolution,
    "gated cell": GatedCell,
    "nn.LSTM": lambda: Last(nn.LSTM(4, 5, batch_first=True), 5),
    "in-place ReLU": lambda: feed_forward(inplace=True),
    "not written": NotWritten,
}
METHODS = {
    "z+": lambda **k: LRP(ZPlus(), start="logit", **k),
    "alpha-beta": lambda **k: LRP(AlphaBeta(2, 1), start="logit", **k),
    "epsilon": lambda **k: LRP(Epsilon(0.05), **k),
    "gamma": lambda **k: LRP(Gamma(0.25), **k),
    "deep Taylor": lambda **k: DeepTaylor(-1, 1, **k),
    "w^2": lambda **k: LRP(WSquare(), start="logit", **k),
    "flat": lambda **k: LRP(Flat(), start="logit", **k),
}


def made(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    model = NETWORKS.get(name, OTHERS.get(name))().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # no weight and no bias is 0
        [*_, last] = [module for module in model.modules() if isinstance(module, nn.Linear)]
        last.bias += 1  # logits are positive
    return model, torch.rand(2, 3, 4, dtype=torch.float64) * 2 - 1


def scalar(relevance: Tensor) -> Tensor:
    """Some function of relevance."""
    weights = torch.linspace(-1, 2, relevance.numel(), dtype=relevance.dtype).view(relevance.shape)
    return (relevance * weights).sum() + relevance.square().sum()


def assert_gradients(method, model: nn.Module, x: Tensor, target: int | None = 1) -> None:
    """By each parameter, in two directions."""
    value = scalar(method(create_graph=True)(model, x, target))
    gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    torch.manual_seed(1)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        for _ in range(2):
            direction = torch.randn_like(parameter)
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter += sign * STEP * direction
                    ends.append(scalar(method()(model, x, target)))
                    parameter -= sign * STEP * direction
            expected = (ends[0] - ends[1]) / (2 * STEP)
            got = torch.zeros(()) if gradient is None else (gradient * direction).sum()
            assert abs(got - expected) <= 1e-6 * max(1.0, abs(expected))


def normalised() -> nn.Module:
    net = nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(8, 5),
        nn.LayerNorm(5), nn.GELU(), nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)),
    )  # fmt: skip
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 1.5)
    return net


class Residual(nn.Module):
    """Residual sums over the steps, and a maximum over them."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, seen = x[:, 0], []
        for t in range(x.shape[1]):
            h = h + torch.tanh(self.step(h) + x[:, t])
            seen.append(h)
        return self.out(torch.stack(seen, 1).amax(1))


class Spectral(nn.Module):
    """A buffer counts calls, another one is moved by the network."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.utils.parametrizations.spectral_norm(nn.Linear(12, 4)), nn.Linear(4, 3)
        self.register_buffer("mean", torch.full((4,), 0.3))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x.flatten(1))
        shift = self.mean.clone()
        self.calls += 1
        self.mean.mul_(0.5).add_(0.5)
        return self.out(torch.relu(h + shift - self.mean) / self.calls)


OTHERS = {
    "norms": normalised,
    "attention": Attention,
    "nn.GRU": lambda: Last(nn.GRU(4, 3, 2, batch_first=True, bidirectional=True), 6),
    "residual": Residual,
    "state": Spectral,
}
