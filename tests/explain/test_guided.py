"""Guided backprop: every ReLU passes only the positive gradients of active units, and nothing else is changed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnx_lightning.explain import GuidedBackprop, NoReLUWarning, UnexplainableError


class Net(nn.Module):
    """A hidden layer, a function of it, and an output layer."""

    def __init__(self, middle, inputs=5):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(inputs, 8).double()
        self.out = nn.Linear(8, 2).double()
        self.middle = middle

    def forward(self, x):
        return self.out(self.middle(self.layer(x)))


FORMS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda h: F.relu(h, inplace=True),
    "torch.relu": torch.relu,
    "method": lambda h: h.relu(),
    "method in place": lambda h: h.relu_(),
    "clamp": lambda h: h.clamp(min=0),
    "clamp_": lambda h: h.clamp_(min=0),
    "clamp_min": lambda h: torch.clamp_min(h, 0),
    "clip": lambda h: torch.clip(h, 0.0, None),
    "clamp by a tensor": lambda h: h.clamp(min=torch.zeros_like(h)),
    "maximum": lambda h: torch.maximum(h, torch.zeros_like(h)),
    "max, zero first": lambda h: torch.max(torch.zeros((), dtype=h.dtype), h),
    "fmax": lambda h: torch.fmax(h, h.new_zeros(8)),
    "threshold": nn.Threshold(0, 0),
    "threshold in place": nn.Threshold(0, 0, inplace=True),
    "where": lambda h: torch.where(h > 0, h, 0.0),
    "where, zeros": lambda h: torch.where(h >= 0, h, torch.zeros_like(h)),
    "where, below": lambda h: torch.where(h <= 0, 0.0, h),
    "where, zero first": lambda h: torch.where(h > 0, h, 0.0),
    "where, by name": lambda h: torch.where(condition=h > 0, input=h, other=0.0),
    "where, method": lambda h: h.where(h > 0, torch.zeros((), dtype=h.dtype)),
    "times a mask": lambda h: h * (h > 0),
    "mask times": lambda h: (h > 0).to(h.dtype) * h,
    "times the mask of a detached": lambda h: h * (h.detach() > 0).double(),
    "times not a mask": lambda h: h * ~(h < 0),
    "times a mask in place": lambda h: h.mul_(h > 0),
    "masked_fill": lambda h: h.masked_fill(h < 0, 0),
    "masked_fill in place": lambda h: h.masked_fill_(h <= 0, 0.0),
    "assignment": lambda h: assigned(h),
    "with an absolute value": lambda h: (h + h.abs()) / 2,
    "an absolute value first": lambda h: 0.5 * (abs(h) + h),
    "added to an absolute value in place": lambda h: h.abs().add_(h) / 2 + 0 * h,
    "an absolute value added in place": lambda h: h.add_(h.abs()).mul_(0.5),
}


def assigned(h):
    h[h < 0] = 0
    return h


CUT_OFF = {
    "ReLU6": nn.ReLU6(),
    "ReLU6 in place": nn.ReLU6(inplace=True),
    "clamp": lambda h: h.clamp(0, 6),
    "clamp by tensors": lambda h: h.clamp(torch.zeros_like(h), torch.full_like(h, 6)),
    "hardtanh": lambda h: F.hardtanh(h, 0, 6),
}


@pytest.mark.parametrize("form", CUT_OFF)
def test_relu6_is_a_relu(form):
    model = Net(CUT_OFF[form])
    x = 8 * torch.randn(64, 5, dtype=torch.float64)
    hidden = model.layer(x)
    active = ((hidden > 0) & (hidden < 6)).double()
    assert 0 < (hidden > 6).sum() < (hidden > 0).sum()
    expected = ((model.out.weight[1].clamp(min=0) * active) @ model.layer.weight).detach() ** 2
    torch.testing.assert_close(GuidedBackprop()(model, x, 1), expected)


NO_RELU = {
    "tanh": torch.tanh,
    "another bound": lambda h: h.clamp(min=-1),
    "another threshold": nn.Threshold(0.1, 0),
    "hardtanh": F.hardtanh,
    "abs": lambda h: h.abs(),
    "a maximum of two signals": lambda h: torch.maximum(h, h.roll(1, 1)),
    "a leak": lambda h: torch.where(h > 0, h, 0.1 * h),
    "the mask of another": lambda h: h * (h.roll(1, 1) > 0),
    "the mask of what has been overwritten since": lambda h: stale(h),
    "another comparison": lambda h: h * (h > 0.1),
    "the absolute value of another": lambda h: h + h.roll(1, 1).abs(),
    "an absolute value of a constant": lambda h: h + h.detach().abs(),
    "an absolute value, changed since": lambda h: h + h.abs().mul_(2),
    "the absolute value of what has been overwritten since": lambda h: h + overwritten_since(h),
    "of positive values": lambda h: h.exp() + h.exp(),
    "a mask of ones": lambda h: h.exp() * torch.ones_like(h, dtype=torch.bool),
}


def stale(h):
    mask = h > 0
    return h.add_(1) * mask


def overwritten_since(h):
    absolute = (h + 0).abs()
    h.add_(1)
    return absolute


@pytest.mark.parametrize("form", FORMS)
def test_every_relu_is_found(form):
    model = Net(FORMS[form])
    x = torch.randn(16, 5, dtype=torch.float64)
    active = (model.layer(x) > 0).double()
    expected = ((model.out.weight[1].clamp(min=0) * active) @ model.layer.weight).detach() ** 2
    torch.testing.assert_close(GuidedBackprop()(model, x, 1), expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_unit_at_zero_is_not_active(form):
    model = Net(FORMS[form])
    nn.init.zeros_(model.layer.bias)
    assert (GuidedBackprop()(model, torch.zeros(3, 5, dtype=torch.float64), 1) == 0).all()


@pytest.mark.parametrize("form", NO_RELU)
def test_what_is_no_relu_lets_negative_gradients_pass_and_that_is_said(form):
    model = Net(NO_RELU[form])
    x = torch.randn(16, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    with pytest.warns(NoReLUWarning, match="no ReLU in this network"):
        relevance = GuidedBackprop()(model, x.detach(), 0)
    torch.testing.assert_close(relevance, gradient**2)


def test_a_gradient_that_relu_shares_with_others_is_theirs_unchanged():
    """A sum hands the same gradient to both of its terms: clamping it for one must not change the other's."""
    model = Net(lambda h: F.relu(h) + h.roll(1, dims=1).clamp(min=0) + 3 * h + h)
    x = torch.randn(16, 5, dtype=torch.float64)
    hidden = model.layer(x)
    weight = model.out.weight[0]
    own = weight.clamp(min=0) * (hidden > 0)
    rolled = (weight.clamp(min=0) * (hidden.roll(1, dims=1) > 0)).roll(-1, dims=1)
    expected = ((own + rolled + 4 * weight) @ model.layer.weight).detach() ** 2
    torch.testing.assert_close(GuidedBackprop()(model, x, 0), expected)


IN_PLACE = {
    "relu_": lambda h: h.relu_(),
    "F.relu": lambda h: F.relu(h, inplace=True),
    "F.relu, positional": lambda h: F.relu(h, True),
    "F.relu, by name": lambda h: F.relu(input=h, inplace=True),
    "module": nn.ReLU(inplace=True),
    "clamp_": lambda h: h.clamp_(min=0),
    "clamp_min_": lambda h: h.clamp_min_(0),
    "threshold_": lambda h: F.threshold_(h, 0, 0),
    "hardtanh_": lambda h: F.hardtanh_(h, 0, 1e9),
    "ReLU6": lambda h: F.hardtanh(h, 0, 1e9, inplace=True),
    "masked_fill_": lambda h: h.masked_fill_(h < 0, 0),
    "mul_": lambda h: h.mul_(h > 0),
}


@pytest.mark.parametrize("form", IN_PLACE)
@pytest.mark.parametrize("view", ["slice", "reshape"])
def test_a_relu_that_overwrites_part_of_a_tensor_is_found(view, form):
    """Against the same network with an ordinary ReLU and no view."""

    def in_place(h):
        if view == "reshape":
            return IN_PLACE[form](h.view(-1, 2, 4)).flatten(1)
        IN_PLACE[form](h[:, :3])
        return h

    def ordinary(h):
        return torch.relu(h) if view == "reshape" else torch.cat([torch.relu(h[:, :3]), h[:, 3:]], dim=1)

    x = torch.randn(16, 5, dtype=torch.float64)
    expected = GuidedBackprop()(Net(ordinary), x, 0)
    torch.testing.assert_close(GuidedBackprop()(Net(in_place), x, 0), expected)
    plain = torch.autograd.grad(Net(in_place)(x.requires_grad_())[:, 0].sum(), x)[0].square()
    assert not torch.allclose(plain, expected)


def test_what_is_written_into_a_tensor_changes_nothing_else():
    def write(h):
        steps = torch.zeros_like(h)
        steps[:, :4] = torch.relu(h[:, :4])
        steps[:, 4:] = h[:, :4]
        return steps

    x = torch.randn(16, 5, dtype=torch.float64)
    expected = GuidedBackprop()(Net(lambda h: torch.cat([torch.relu(h[:, :4]), h[:, :4]], dim=1)), x, 0)
    torch.testing.assert_close(GuidedBackprop()(Net(write), x, 0), expected)


def test_the_relus_inside_torchs_own_recurrent_layer_are_found():
    """Against the layer's equation, step by step, and its guided backward pass by hand."""
    torch.manual_seed(0)
    layer = nn.RNN(3, 4, nonlinearity="relu", batch_first=True, bias=False).double()
    out = nn.Linear(4, 2, bias=False).double()

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.out = layer, out

        def forward(self, x):
            return self.out(self.layer(x)[0][:, -1])

    x = torch.randn(6, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        hidden, states = torch.zeros(6, 4, dtype=torch.float64), []
        for step in x.unbind(1):
            hidden = F.relu(step @ layer.weight_ih_l0.T + hidden @ layer.weight_hh_l0.T)
            states.append(hidden)
        gradient, expected = out.weight[1].expand(6, 4), []
        for state in reversed(states):
            gradient = gradient.clamp(min=0) * (state > 0)
            expected.insert(0, gradient @ layer.weight_ih_l0)
            gradient = gradient @ layer.weight_hh_l0
    torch.testing.assert_close(GuidedBackprop()(Last(), x, 1), torch.stack(expected, dim=1) ** 2)


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.relu()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_an_autograd_function_that_may_hide_a_relu_is_refused():
    with pytest.raises(
        UnexplainableError, match=r"'HiddenBackward' contains a ReLU\. Write it with torch operations"
    ):
        GuidedBackprop()(Net(Hidden.apply), torch.rand(3, 5, dtype=torch.float64), 1)


def twice_and_relu(h: torch.Tensor):
    return torch.relu(2 * h) + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_code_that_may_hide_a_relu_is_refused():
    model, x = Net(torch.jit.script(twice_and_relu)), torch.rand(3, 5, dtype=torch.float64)
    for _ in range(3):  # until it is compiled
        model(x.clone().requires_grad_())
    with pytest.raises(UnexplainableError, match="contains a ReLU"):
        GuidedBackprop()(model, x, 1)
