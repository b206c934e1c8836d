"""Gradients through norms are those of finite differences, whichever way a picture lies in memory."""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import GradientTimesInput, GuidedBackprop, IntegratedGradients, Sensitivity

NORMS = {
    "BatchNorm2d": (nn.BatchNorm2d(4), (4, 3, 3)),
    "BatchNorm3d": (nn.BatchNorm3d(4), (4, 2, 2, 3)),
    "InstanceNorm2d": (nn.InstanceNorm2d(4, affine=True), (4, 3, 3)),
}


class Patches(nn.Module):
    """Reads a picture through a norm as a row of tokens, and maybe a row of tokens as a picture."""

    def __init__(self, norm, shape, of_tokens):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.shape, self.of_tokens = norm, shape, of_tokens
        self.out = nn.Linear(shape[0], 2)
        if norm.running_mean is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 1.5)
        norm.weight.data.normal_()
        self.double().eval()

    def forward(self, x):  # (B, tokens, channels) or (B, channels, ...)
        if self.of_tokens:
            x = x.transpose(1, 2).reshape(len(x), *self.shape)
        x = self.norm(x)
        if self.of_tokens:
            return self.out(x.mean(tuple(range(2, x.dim()))).tanh())
        return self.out(x.flatten(2).transpose(1, 2).contiguous()).tanh().mean(1)


@pytest.mark.parametrize("of_tokens", [False, True], ids=["to tokens", "of tokens"])
@pytest.mark.parametrize("name", NORMS)
def test_a_batch_of_one_gets_the_gradient_of_finite_differences(name, of_tokens):
    norm, shape = NORMS[name]
    model = Patches(norm, shape, of_tokens)
    x = torch.randn(1, *shape, dtype=torch.float64)
    x = x.flatten(2).transpose(1, 2).contiguous() if of_tokens else x
    steps = 1e-6 * torch.eye(x.numel(), dtype=torch.float64).view(-1, *x.shape)
    with torch.no_grad():
        gradient = torch.stack([(model(x + s) - model(x - s))[0, 1] for s in steps]).view(x.shape) / 2e-6
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(Sensitivity()(model, x, 1), gradient.square(), **close)
    torch.testing.assert_close(Sensitivity(gates="constant")(model, x, 1), gradient.square(), **close)
    torch.testing.assert_close(GradientTimesInput()(model, x, 1), gradient * x, **close)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "method", [GuidedBackprop(), IntegratedGradients(), Sensitivity()], ids=lambda m: type(m).__name__
)
def test_a_batch_of_one_is_explained_as_in_a_larger_batch(method):
    model = nn.Sequential(nn.Conv2d(3, 4, 2), Patches(*NORMS["BatchNorm2d"], False)).double()
    x = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(method(model, x[1:2], 1), method(model, x, 1)[1:2])


@pytest.mark.parametrize("method", [GradientTimesInput(gates="constant"), GuidedBackprop(gates="constant")])
def test_a_normalised_gate_of_a_batch_of_one_is_held_constant(method):
    class Attention(nn.Module):
        """A picture is scaled by a gate made of it, as in attention U-Nets."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.gate = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
            self.out = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.out(x * self.gate(x)).relu().sum((2, 3))

    model = Attention().double().eval()
    x = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(method(model, x[1:2], 1), method(model, x, 1)[1:2])
