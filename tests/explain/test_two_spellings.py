"""A function has one relevance, in whichever of two ways a network writes it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import LRP, AlphaBeta, Composite, Epsilon, Gamma, GradientTimesInput, ZPlus

RULES = [ZPlus(), Epsilon(1e-12), AlphaBeta(2, 1), Gamma(0.25)]
names = {rule: type(rule).__name__ for rule in RULES}


class Reader(nn.Module):
    """A convolution, something in the middle, and a linear layer."""

    def __init__(self, middle):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.middle = nn.Conv2d(1, 3, 3), middle
        self.out = nn.LazyLinear(2)
        self.double()
        with torch.no_grad():
            self(torch.zeros(2, 1, 8, 8, dtype=torch.float64))
            self.out.weight.normal_()

    def forward(self, x):
        return self.out(self.middle(self.conv(x)).flatten(1))


def average(h):
    return F.conv2d(h, torch.full((3, 1, 2, 2), 0.25, dtype=h.dtype), stride=2, groups=3)


def largest(h):
    return h.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).amax(-1)


def running(h):
    return h @ torch.ones(6, 6, dtype=h.dtype).triu()


FROM, TO = torch.tensor([0, 1, 2, 3, 4, 5, 0, 2]), torch.tensor([1, 2, 3, 4, 5, 0, 3, 5])
EDGES = torch.zeros(6, 6).index_put((TO, FROM), torch.ones(8))


def edges(h):
    return EDGES.to(h.dtype)


def places(h):
    return TO[:, None].expand(*h.shape[:2], 8, h.shape[-1])


def added(h, way):
    messages, zeros = h[..., FROM, :], torch.zeros_like(h)
    if way == "index_add":
        return zeros.index_add(2, TO, messages)
    if way == "index_add, three times":
        return zeros.index_add(2, TO, messages, alpha=3)
    if way == "scatter_add_":
        return zeros.scatter_add_(2, places(h), messages)
    if way == "index_put":
        return zeros.transpose(0, 2).index_put((TO,), messages.transpose(0, 2), accumulate=True).transpose(0, 2)
    return zeros.scatter_reduce(2, places(h), messages, way, include_self=False)


def moments(h, together):
    if together:
        variance, mean = torch.var_mean(h, (1, 2), keepdim=True)
    else:
        variance, mean = h.var((1, 2), keepdim=True), h.mean((1, 2), keepdim=True)
    return (h - mean) / (variance + 1e-5).sqrt()


def transposed_in_place(h):
    h = (2 * h).relu()
    h.transpose_(2, 3)
    h.unsqueeze_(1).squeeze_(1)
    return h


def by_matrix(h, **how):
    pixels = torch.eye(36, dtype=h.dtype).view(1, 36, 6, 6)
    weight = F.interpolate(pixels, **how)
    return (h.flatten(2) @ weight.view(36, -1)).view(*h.shape[:2], *weight.shape[2:])


def resized(**how):
    return lambda h: F.interpolate(h, **how), lambda h: by_matrix(h, **how)


def cosines(h):
    steps = torch.arange(6, dtype=h.dtype)
    return torch.cos(2 * torch.pi * steps[:, None] * steps[:4] / 6)


def read(h, way):
    """A look-up of a number that is rounded."""
    table = torch.linspace(-1, 1, 33, dtype=h.dtype).view(11, 3) ** 3
    numbers = h.clamp(-1, 1).mul(5).add(5)[:, 0]
    if way == "one-hot":
        return F.one_hot(numbers.long(), 11).to(h.dtype) @ table
    return table[numbers.long()] if way == "index" else F.embedding(numbers.long(), table)


def normalised_gates(h, way):
    """A batch norm of gates, beside h, and the same as a convolution."""
    mean, scale, shift = (torch.linspace(a, b, 3, dtype=h.dtype) for a, b in ((0.2, 0.8), (-1, 2), (1, -2)))
    if way == "batch norm":
        return F.batch_norm(h.sigmoid(), mean, torch.full_like(mean, 0.25), scale, shift, eps=0.0) + h
    return F.conv2d(h.sigmoid(), torch.diag(2 * scale).view(3, 3, 1, 1), shift - 2 * scale * mean) + h


def columns(h, way):
    """A linear layer that reads gates."""
    gates, matrix, bias = h.sigmoid(), cosines(h), torch.linspace(-1, 2, 4, dtype=h.dtype)
    return (gates.unsqueeze(-2) * matrix.T).sum(-1) + bias if way == "sum" else F.linear(gates, matrix.T, bias)


SPELLINGS = {
    "mean of gates": (lambda h: F.avg_pool2d(h.sigmoid(), 2), lambda h: average(h.sigmoid())),
    "mean of gates over a dimension": (
        lambda h: h.sigmoid().mean(-1),
        lambda h: h.sigmoid() @ torch.full((6, 1), 1 / 6, dtype=h.dtype),
    ),
    "largest gate": (lambda h: F.max_pool2d(h.sigmoid(), 2), lambda h: largest(h.sigmoid())),
    "running sum of gates": (lambda h: h.sigmoid().cumsum(-1), lambda h: running(h.sigmoid())),
    "gates times a learned number": (
        lambda h: h + torch.tensor(0.7, dtype=h.dtype) * h.sigmoid() + h.flip(1).sigmoid() * h.new_full((1,), 2),
        lambda h: h + 0.7 * h.sigmoid() + h.flip(1).sigmoid() * 2,
    ),
    "a learned number over gates": (
        lambda h: h + torch.tensor(0.7, dtype=h.dtype) / (1 + h.sigmoid()),
        lambda h: h + 0.7 / (1 + h.sigmoid()),
    ),
    "batch norm of gates": (
        lambda h: normalised_gates(h, "batch norm"),
        lambda h: normalised_gates(h, "convolution"),
    ),
    "a matrix times gates": (lambda h: columns(h, "sum").relu(), lambda h: columns(h, "linear").relu()),
    "a matrix times gates, beside a signal": (
        lambda h: columns(h, "sum") + h[..., 2:],
        lambda h: columns(h, "linear") + h[..., 2:],
    ),
    "mean of absolute values": (lambda h: F.avg_pool2d(h.abs(), 2), lambda h: average(h.relu() + (-h).relu())),
    "absolute values with a bias": (
        lambda h: (h.abs() + 0.5).relu(),
        lambda h: (torch.where(h > 0, h, -h) + 0.5).relu(),
    ),
    "messages added by an index": (lambda h: added(h, "index_add"), lambda h: edges(h) @ h),
    "messages added three times": (lambda h: added(h, "index_add, three times"), lambda h: 3 * (edges(h) @ h)),
    "messages scattered": (lambda h: added(h, "scatter_add_"), lambda h: edges(h) @ h),
    "messages accumulated": (lambda h: added(h, "index_put"), lambda h: edges(h) @ h),
    "mean of messages": (
        lambda h: added(h, "mean"),
        lambda h: (edges(h) / edges(h).sum(1, keepdim=True)) @ h,
    ),
    "largest message": (
        lambda h: added(h.relu() + 1, "amax"),
        lambda h: torch.stack([(h.relu() + 1)[..., FROM[i == TO], :].amax(2) for i in range(6)], 2),
    ),
    "a sparse matrix": (
        lambda h: torch.stack([torch.sparse.mm(edges(h).to_sparse(), part) for part in h.flatten(0, 1)]).view(
            h.shape
        ),
        lambda h: edges(h) @ h,
    ),
    "Python's sum of one value": (lambda h: sum([h.tanh()]), lambda h: h.tanh()),
    "variance and mean at once": (lambda h: moments(h, True), lambda h: moments(h, False)),
    "squared ReLU": (lambda h: h.relu() ** 2, lambda h: h.relu() * h.relu()),
    "a square": (lambda h: h.square(), lambda h: h * h),
    "a norm": (lambda h: (h - 1).relu().norm(dim=2), lambda h: (h - 1).relu().square().sum(2).sqrt()),
    "a deviation": (lambda h: torch.std_mean(h, 2)[0], lambda h: h.var(2).sqrt()),
    "a bound above 0": (lambda h: h.clamp(min=0.1), lambda h: torch.maximum(h, torch.tensor(0.1, dtype=h.dtype))),
    "a threshold": (lambda h: F.threshold(h, 0.1, -1), lambda h: torch.where(h > 0.1, h, -1.0)),
    "a mean to the third power": (
        lambda h: F.avg_pool2d(h.relu().pow(3), 2).pow(1 / 3),
        lambda h: F.avg_pool2d(h.relu() ** torch.tensor(3.0, dtype=h.dtype), 2) ** (1 / 3),
    ),
    "a Fourier transform": (lambda h: torch.fft.rfft(h.relu()).real, lambda h: h.relu() @ cosines(h)),
    "a root mean square": (
        lambda h: h * (h.pow(2).mean(1, keepdim=True) + 1e-6) ** -0.5,
        lambda h: F.rms_norm(h.movedim(1, -1), (3,), eps=1e-6).movedim(-1, 1),
    ),
    "bounds in tensors": (lambda h: h.clamp(min=torch.zeros(6, dtype=h.dtype)), lambda h: h.relu()),
    "transposed in place": (transposed_in_place, lambda h: (2 * h).relu().transpose(2, 3)),
    "bicubic interpolation": resized(size=(4, 7), mode="bicubic"),
    "bicubic interpolation from corner to corner": resized(size=(4, 7), mode="bicubic", align_corners=True),
    "bicubic interpolation by factors": resized(scale_factor=(1.3, 0.6), mode="bicubic"),
    "averaged bicubic interpolation": resized(scale_factor=(0.4, 1.3), mode="bicubic", antialias=True),
    "averaged bilinear interpolation": resized(size=(1, 4), mode="bilinear", antialias=True),
    "a table at whole numbers": (lambda h: read(h, "index"), lambda h: read(h, "embedding")),
    "one-hot whole numbers": (lambda h: read(h, "one-hot"), lambda h: read(h, "embedding")),
}
TOLD = {
    "squared ReLU": {"products": "half"},
    "one-hot whole numbers": {"bias": "spread"},
    "a learned number over gates": {"functions": "identity"},
}


@pytest.mark.parametrize("rule", RULES, ids=names.get)
@pytest.mark.parametrize("what", SPELLINGS)
def test_two_spellings_have_one_relevance(what, rule):
    one, other = (Reader(middle) for middle in SPELLINGS[what])
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(one(x), other(x))
    method = LRP(Composite(rule, **TOLD.get(what, {})), start="logit")
    relevance = method(one, x, 1)
    assert bool((relevance != 0).any())
    torch.testing.assert_close(relevance, method(other, x, 1), rtol=1e-6, atol=1e-9 * float(relevance.abs().max()))


def rolled_in_place(t):
    t = t.masked_fill(t == -100, 0)
    last = t.gather(1, torch.full((len(t), 1), t.shape[1] - 1)).squeeze(1)
    t[:, 1:] = t[:, :-1].clone()
    t[:, 0] = last
    return t


class Tokens(nn.Module):
    """Reads tokens (B, T) in one of several ways, beside another look-up, or alone and at once by a layer."""

    def __init__(self, way, beside=0.1):
        super().__init__()
        torch.manual_seed(0)
        self.way, self.beside, self.table, self.out = way, beside, nn.Embedding(9, 4), nn.Linear(4, 2)
        self.double()

    def forward(self, t):
        weight = self.table.weight
        vectors = {
            "embedding": lambda: self.table(t),
            "index": lambda: weight[t],
            "index_select": lambda: weight.index_select(0, t.flatten()).view(*t.shape, 4),
            "columns": lambda: weight.T[:, t].permute(1, 2, 0),
            "columns by index_select": lambda: weight.T.index_select(-1, t.flatten()).T.unflatten(0, t.shape),
            "one-hot": lambda: F.one_hot(t, 9).double() @ weight,
            "arithmetic": lambda: self.table((2 * t + 1) // 2),
            "shifted within": lambda: self.table(rolled_in_place(t)).roll(-1, 1),
            "shifted": lambda: F.embedding(1 + t, torch.cat([weight[:1], weight])),
        }[self.way]()
        if not self.beside:
            return self.out(vectors).relu().sum(1)
        return self.out((vectors + self.beside * self.table(t)).relu().mean(1))


@pytest.mark.parametrize("rule", RULES, ids=names.get)
@pytest.mark.parametrize(
    "way",
    [
        *("index", "index_select", "columns", "columns by index_select", "one-hot", "shifted", "shifted within"),
        "arithmetic",
    ],
)
@pytest.mark.parametrize("beside", [0.1, 0])
@pytest.mark.parametrize("bias", ["share", "spread"])
def test_tokens_are_looked_up_in_whichever_way(bias, beside, way, rule):
    tokens = torch.randint(0, 9, (3, 5))
    method = LRP(Composite(rule, bias=bias), start="logit")
    torch.testing.assert_close(
        method(Tokens(way, beside), tokens, 1),
        method(Tokens("embedding", beside), tokens, 1),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("rule", RULES, ids=names.get)
def test_tokens_used_as_numbers_have_relevance(rule):
    """W t, by the book: all contributions of a token are its own."""
    number, tokens = nn.Linear(5, 2).double(), torch.randint(1, 9, (3, 5))
    method = LRP(Composite(rule), start="logit")
    relevance = method(nn.Sequential(AsNumbers(), number), tokens, 1)
    torch.testing.assert_close(relevance, method(number, tokens.double() / 9, 1))


class Masked(nn.Module):
    """The mean of the tokens' vectors that a mask of whole numbers keeps; attention with the mask added."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.out = nn.Embedding(9, 4).double(), nn.Linear(4, 2).double()

    def forward(self, tokens, mask):
        vectors = self.table(tokens)
        kept = mask.unsqueeze(-1).double()
        weights = (vectors @ vectors.mT + (1 - mask[:, None].double()) * -1e9).softmax(-1)
        mean = (vectors * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
        return self.out(mean + (weights @ vectors)[:, 0])


@pytest.mark.parametrize("rule", RULES, ids=names.get)
def test_a_mask_of_whole_numbers_takes_nothing(rule):
    """Whether it is explained beside the tokens or an argument."""
    tokens, mask = torch.randint(1, 9, (3, 5)), torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [1, 1, 1, 1, 0]])
    model, method = Masked(), LRP(Composite(rule), start="logit")
    both = method(model, {"tokens": tokens, "mask": mask}, 1)
    assert not both["mask"].any()
    torch.testing.assert_close(both["tokens"], method(model, tokens, 1, mask=mask))


class AsNumbers(nn.Module):
    def forward(self, tokens):
        return tokens.double() / 9


class Spectra(nn.Module):
    """Signals through Fourier transforms, products and slices of complex numbers, then a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.before, self.out = nn.Linear(8, 8).double(), nn.Linear(8, 2).double()
        self.filter = nn.Parameter(torch.randn(5, 2, dtype=torch.float64))

    def forward(self, x):
        h = self.before(x)
        spectrum = torch.fft.rfft(h, norm="ortho") * torch.view_as_complex(self.filter)
        kept = torch.zeros_like(spectrum)
        kept[:, :3] = spectrum[:, :3]
        turned = torch.complex(h, 2 * h) * torch.exp(torch.tensor(0.3j)) / (1 - 2j)
        turned = torch.fft.ifft(torch.fft.fft(turned.conj().unsqueeze(1), dim=2)).squeeze(1)
        power = torch.stft(h, 4, 2, window=torch.hann_window(4).double(), return_complex=True).abs().sum(1)
        real = torch.fft.irfft(kept, n=8, norm="ortho") + turned.imag
        return self.out(real + torch.cat([power, power[:, :3]], 1))


@pytest.mark.parametrize("create_graph", [False, True])
def test_complex_numbers_are_explained_as_linear_maps(create_graph):
    """All is homogeneous of degree 1 but for biases: LRP-0 is the gradient times the input where these are 0."""
    model = Spectra()
    nn.init.zeros_(model.before.bias)
    nn.init.zeros_(model.out.bias)
    x = torch.randn(3, 8, dtype=torch.float64)
    explanation = LRP(Composite(Epsilon(1e-14)), create_graph=create_graph).explain(model, x, 1)
    expected = GradientTimesInput()(model, x, 1)
    torch.testing.assert_close(explanation.relevance.detach(), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(explanation.logits.detach(), model(x).detach(), rtol=1e-12, atol=1e-12)
