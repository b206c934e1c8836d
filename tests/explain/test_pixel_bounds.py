"""Deep Taylor's box: inputs outside of it are told, it can be taken from the data, and differ by channel."""

import re
import warnings

import naive
import numpy as np
import pytest
import torch
from readers import assert_equal
from torch import nn
from two_layers import Last

from rnnx_lightning import explain
from rnnx_lightning.explain import LRP, Composite, DeepTaylor, IntegratedGradients, ZBox, ZPlus


def network(bias=False):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 2, bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3, bias=bias)
    ).double()


def data(count=4):
    torch.manual_seed(1)
    return torch.rand(count, 2, 3, 3, dtype=torch.float64)


def by_hand(model, x, low, high):
    """Dense algebra for one example (2, 3, 3) and its greatest logit; bounds of its shape."""
    J = torch.autograd.functional.jacobian(lambda a: model[0](a[None])[0].flatten(), x).flatten(1).numpy()
    hidden, V = model[:3](x[None])[0].detach().numpy(), model[3].weight.detach().numpy()
    logits = V @ hidden
    R = np.where(np.arange(3) == logits.argmax(), np.maximum(logits, 0), 0)
    R = naive.z_plus(V, hidden, np.zeros(3), R)
    low, high, a = (np.broadcast_to(value, x.shape).ravel() for value in (low, high, x.numpy()))
    z = J * a - np.maximum(J, 0) * low - np.minimum(J, 0) * high
    return torch.tensor(naive.share(z, np.zeros(len(J)), R)).view(x.shape)


OUTSIDE = {
    "above": lambda x: x * 7 - 0.5,
    "below": lambda x: -3 * x,
    "one pixel": lambda x: x.index_put((torch.tensor(1), torch.tensor(0), torch.tensor(2), torch.tensor(2)), torch.tensor(3.25).double()),
}  # fmt: skip


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(
    "method", [DeepTaylor(-1, 1), LRP(Composite(ZPlus(), pixels=ZBox(-1, 1)))], ids=["deep Taylor", "z^B"]
)
def test_pixels_outside_the_box_are_told_once(method, outside):
    x = OUTSIDE[outside](data())
    inner = network()
    twice = Last(nn.Identity(), lambda x: inner(x) + inner(x.flip(3)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method(twice, x)
    told = [str(w.message) for w in caught if not issubclass(w.category, explain.NothingToExplainWarning)]
    assert len(told) == 1
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", told[0])]
    for number in (-1, 1, x.min(), x.max()):  # the box, and the range that was seen
        assert any(abs(number - said) <= 0.02 * abs(number) for said in numbers), told


@pytest.mark.parametrize("x", [data(), -data(), data().round(), data() * 2 - 1], ids=range(4))
def test_pixels_within_the_box_are_no_news(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="(?i).*nothing to explain.*")
        DeepTaylor(-1, 1)(network(), x)


def test_scaled_pixels_are_compared_as_they_came():
    """A network that standardises its input itself: the box is that of the input."""
    inner = network()
    model = Last(nn.Identity(), lambda x: inner((x - 0.5) / 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="(?i).*nothing to explain.*")
        DeepTaylor(0, 1)(model, data())


@pytest.mark.parametrize(
    "low", [0.0, torch.tensor([0.0, -0.5], dtype=torch.float64).view(2, 1, 1)], ids=["a number", "a channel"]
)
def test_pooling_after_a_standardisation_and_a_transpose(low):
    """Each channel has a scale of its own, which goes with its pixels wherever they go."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(2, 1, 1) for v in ([0.4, 0.6], [0.1, 0.3]))
    torch.manual_seed(3)
    layer = nn.Conv2d(2, 3, 2, bias=False).double()
    plain = Last(nn.Identity(), lambda x: layer(nn.functional.max_pool2d((x - mean) / std, 2, 1)).flatten(1))
    turned = Last(nn.Identity(), lambda x: plain(((x.mT - mean) / std) * std + mean))
    pooled_late = Last(
        nn.Identity(), lambda x: layer(nn.functional.max_pool2d(((x - mean) / std).mT, 2, 1).mT).flatten(1)
    )
    x, method = data(), DeepTaylor(low, 1.0)
    expected = method(plain, x)
    assert_equal(method(turned, x.mT), expected.mT)
    assert_equal(method(pooled_late, x), expected)


def test_the_box_of_the_data():
    """Least and greatest value of the input; here of one example, so that it is also the example's."""
    model, x = network(), data(1) * 5 - 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="(?i).*nothing to explain.*")
        relevance = DeepTaylor(low="data")(model, x)
    assert_equal(relevance, by_hand(model, x[0], x.min().numpy(), x.max().numpy())[None])
    assert_equal(relevance, DeepTaylor(float(x.min()), float(x.max()))(model, x))


def test_one_bound_of_the_data_and_one_that_is_given():
    model, x = network(), data(2) * 5 - 3
    least, greatest = float(x.min()), float(x.max())
    assert_equal(DeepTaylor("data", 9.0)(model, x), DeepTaylor(least, 9.0)(model, x))
    assert_equal(DeepTaylor(-9.0, "data")(model, x), DeepTaylor(-9.0, greatest)(model, x))
    assert_equal(DeepTaylor(high="data")(model, x), DeepTaylor(least, greatest)(model, x))


BOUNDS = {
    "a channel": (torch.tensor([-1.0, -0.5]).view(2, 1, 1), torch.tensor([1.5, 2.0]).view(2, 1, 1)),
    "a pixel": (-torch.arange(1.0, 19.0).view(2, 3, 3), torch.arange(2.0, 20.0).view(2, 3, 3)),
    "numbers of no dimension": (torch.tensor(-1.0), torch.tensor(2.0)),
    "one tensor, one number": (torch.tensor([-1.0, -0.5]).view(2, 1, 1), 2.0),
    "with a batch dimension": (torch.full((1, 2, 1, 1), -0.5), torch.full((1, 2, 1, 1), 1.5)),
}


@pytest.mark.parametrize("bounds", BOUNDS)
def test_bounds_that_are_tensors(bounds):
    low, high = (torch.as_tensor(bound).double() for bound in BOUNDS[bounds])
    model, x = network(), data()
    squeezed = [bound[0] if bound.dim() == 4 else bound for bound in (low, high)]
    expected = torch.stack([by_hand(model, example, *(b.numpy() for b in squeezed)) for example in x])
    assert_equal(DeepTaylor(low, high)(model, x), expected)
    assert_equal(LRP(Composite(ZPlus(), pixels=ZBox(low, high)))(model, x), expected)


def test_tensor_bounds_follow_padding_and_joins():
    """Bounds go with the pixels: the same network on padded, cut and joined pixels."""
    low, high = BOUNDS["a channel"]
    inner, x = network(), data()

    class Moved(nn.Module):
        def forward(self, x):
            x = nn.functional.pad(x, (1, 2, 0, 1))[:, :, :-1, 1:-2]
            return inner(torch.cat([x[:, :1], x[:, 1:]], 1))

    method = DeepTaylor(low.double(), high.double())
    assert_equal(method(Moved(), x), method(inner, x))


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 1.0), (2.0, 1.0), (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])), (torch.tensor(1.0), 0.0)],
)
def test_a_box_without_room_is_refused(low, high):
    with pytest.raises(ValueError, match="low"):
        ZBox(low, high)


@pytest.mark.parametrize("shape", [(), (2, 1, 1), (2, 3, 3), (1, 2, 3, 3), (4, 2, 3, 3)])
def test_integrated_gradients_from_a_tensor(shape):
    torch.manual_seed(2)
    baseline, model, x = torch.randn(shape, dtype=torch.float64), network(bias=True), data()
    relevance = IntegratedGradients(baseline, steps=300)(model, x, 1)
    difference = model(x)[:, 1] - model(baseline.expand_as(x))[:, 1]
    torch.testing.assert_close(relevance.flatten(1).sum(1), difference.detach(), rtol=0, atol=1e-2)


class TwoInputs(nn.Module):
    """Reads two inputs with one layer each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.out = (nn.Linear(*sizes, bias=False) for sizes in ((3, 4), (2, 4), (4, 2)))
        self.double()

    def forward(self, one, two):
        return self.out((self.one(one) + self.two(two)).relu())


def test_all_inputs_are_compared_with_the_box():
    """The second input is the wider one."""
    torch.manual_seed(1)
    x = torch.rand(5, 3, dtype=torch.float64), 10 * torch.rand(5, 2, dtype=torch.float64) - 5
    model = TwoInputs()
    outside = sum(int(((part < -2) | (part > 1)).sum()) for part in x)
    with pytest.warns(
        explain.PixelRangeWarning, match=rf"{outside} of 25 .*from {x[1].min():g} to {x[1].max():g}:"
    ):
        DeepTaylor(-2, 1)(model, x, lambda logits: logits.square().sum(1))
    bounds = float(x[1].min()), float(x[1].max())
    for own, known in zip(DeepTaylor("data", "data")(model, x), DeepTaylor(*bounds)(model, x), strict=True):
        assert_equal(own, known)


def test_bounds_by_entry_are_those_of_the_input_of_their_shape():
    x = torch.rand(5, 3, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64) - 0.5
    low = torch.zeros(3, dtype=torch.float64)
    model = TwoInputs()
    with warnings.catch_warnings():
        warnings.simplefilter("error", explain.PixelRangeWarning)
        LRP(Composite(ZPlus(), by_name={"two": ZPlus()}, pixels=ZBox(low, low + 1)), start="logit")(model, x, 0)


def test_bounds_that_fit_no_input_are_refused():
    x = torch.rand(2, 6)
    bounds = DeepTaylor(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(3,\) fit no input, of shapes \(2, 6\)"):
        bounds(nn.Linear(6, 2), x, 0)


def test_what_is_no_number_has_no_bounds():
    x = torch.full((2, 6), float("nan"))
    with pytest.raises(ValueError, match="the input has NaN"):
        DeepTaylor("data", "data")(nn.Linear(6, 2), x, 0)


class Centred(nn.Module):
    """Pixels minus their mean over some dimensions, before a ReLU; or the same as one matrix."""

    def __init__(self, dims, flat, as_matrix):
        super().__init__()
        torch.manual_seed(0)
        self.dims, self.flat, self.as_matrix, self.out = dims, flat, as_matrix, nn.Linear(4, 3, bias=False)
        self.double()

    def forward(self, x):
        pixels = x.flatten() if self.flat else x
        if self.as_matrix:
            unit = torch.eye(x.numel(), dtype=x.dtype).view(-1, *pixels.shape)
            dims = [dim + 1 for dim in self.dims]
            pixels = ((unit - unit.mean(dims, keepdim=True)).flatten(1).T @ pixels.flatten()).view_as(pixels)
        else:
            pixels = pixels - pixels.mean(self.dims, keepdim=True)
        return self.out((2 * pixels).relu().view_as(x))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    ("dims", "flat", "count"),
    [([0, 1], False, 5), ([0], False, 5), ([1], False, 5), ([0], True, 5), ([0], True, 1)],
)
def test_pixels_minus_the_mean_of_a_batch(dims, flat, count, create_graph):
    x = torch.rand(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    method = LRP(Composite(ZPlus(), pixels=ZBox(-1, 2)), start="logit", create_graph=create_graph)
    assert_equal(*(method(Centred(dims, flat, as_matrix), x, 1) for as_matrix in (False, True)))
