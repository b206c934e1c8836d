"""Small networks that read sequences through a recurrent module, and what `by_the_book` says of them."""

import numpy as np
import torch
from by_the_book import Network
from shares import messages, share
from torch import nn

from rnnx_lightning.explain import LRP, Composite, Epsilon

KINDS = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN tanh": nn.RNN,
    "RNN relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}
BATCH, STEPS, INPUTS, UNITS, CLASSES = 3, 6, 4, 3, 3
READS = {
    "last step": lambda output, h_n, c_n: output[:, -1],
    "all steps": lambda output, h_n, c_n: output.flatten(1),
    "mean": lambda output, h_n, c_n: output.mean(1),
    "h_n": lambda output, h_n, c_n: h_n.transpose(0, 1).flatten(1),
    "c_n": lambda output, h_n, c_n: c_n.transpose(0, 1).flatten(1),
}


class Reader(nn.Module):
    """Logits from what is read of a recurrent module's outputs."""

    def __init__(self, kind, read="last step", head_bias=True, **options):
        super().__init__()
        torch.manual_seed(1)
        self.rnn, self.read = KINDS[kind](INPUTS, UNITS, batch_first=True, **options).double(), read
        with torch.no_grad():
            for name, parameter in self.rnn.named_parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.8)
                if (
                    "bias_hh" in name
                ):  # two constants of one sum, of one sign: they may be counted together or apart
                    parameter.copy_(parameter.abs() * getattr(self.rnn, name.replace("hh", "ih")).sign())
        self.out = nn.Linear(
            self.features(torch.zeros(1, STEPS, INPUTS).double()).shape[1], CLASSES, head_bias
        ).double()

    def features(self, x, hx=None):
        output, state = self.rnn(x, hx)
        return READS[self.read](output, *(state if isinstance(state, tuple) else (state, None)))

    def forward(self, x, hx=None):
        return self.out(self.features(x, hx))


def data():
    torch.manual_seed(2)
    return torch.randn(BATCH, STEPS, INPUTS, dtype=torch.float64), torch.tensor([0, 2, 1])


def start_states(module, zero_h=False):
    torch.manual_seed(3)
    count = module.num_layers * (2 if module.bidirectional else 1)
    h = torch.randn(count, BATCH, module.proj_size or UNITS).double() * (0 if zero_h else 1)
    return (h, torch.randn(count, BATCH, UNITS).double()) if isinstance(module, nn.LSTM) else h


def by_the_book(model, x, target, book, hx=None):
    """(B, T, I), a Reader's examples one by one."""
    weight, bias = model.out.weight.detach().numpy(), model.out.bias
    bias = np.zeros(CLASSES) if bias is None else bias.detach().numpy()
    result = []
    for b in range(len(x)):
        states = () if hx is None else hx if isinstance(hx, tuple) else (hx,)
        net = Network(model.rnn, x[b].numpy(), *(state[:, b].numpy() for state in states))
        read = {"h_n": net.h_n, "c_n": net.c_n, "last step": net.output[-1], "mean": net.output.mean(0)}
        features = read.get(model.read, net.output)
        R = np.zeros(CLASSES)
        R[target[b]] = (weight @ features.ravel() + bias)[target[b]]
        R = share(weight * features.ravel(), bias, R, book).reshape(features.shape)
        if model.read == "last step":
            R = np.concatenate([np.zeros_like(net.output[1:]), R[None]])
        elif model.read == "mean":
            R = messages(net.output.T / STEPS, 0 * R, R, book).T
        name = model.read if model.read in ("h_n", "c_n") else "output"
        result.append(net.relevance(book, **{name: R}))
    return torch.tensor(np.array(result))


def assert_equal(relevance, expected, precision=1e-10):
    """To a precision relative to the greatest relevance of each example."""
    assert expected.any() or len(expected) == 1
    greatest = expected.flatten(1).abs().amax(1).clamp(min=1e-12)  # z+ may lose all that a tanh unit has
    error = (relevance - expected).flatten(1).abs().amax(1) / greatest
    assert error.max() <= precision, f"relative error {error.max():.1e}"


def epsilon(book):
    return LRP(Composite(Epsilon(book.epsilon), memory=book.memory, bias=book.bias), start="logit")
