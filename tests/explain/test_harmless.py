"""What only looks at values, masks and counts in passing, is a constant: no relevance, and no reason to refuse."""

import pytest
import torch
from readers import assert_equal
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from two_layers import METHODS, Last

from rnnx_lightning.explain import GradientTimesInput, InChunks, IntegratedGradients, Sensitivity

ALL = METHODS | {
    "gradient x input": GradientTimesInput,
    "sensitivity": Sensitivity,
    "integrated": IntegratedGradients,
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def data():
    torch.manual_seed(1)
    return torch.rand(4, 3, 4, dtype=torch.float64) + 0.1  # positive and not zero


def asserted(*conditions):
    """A function of x that looks at it and hands it on."""

    def look(x):
        for condition in conditions:
            assert bool(condition(x))
        return x

    return look


LOOKS = {
    "isnan, any": asserted(lambda x: not torch.isnan(x).any(), lambda x: not x.isnan().any()),
    "isfinite, all": asserted(lambda x: torch.isfinite(x).all(), lambda x: not x.isinf().any().item()),
    "comparisons": asserted(*(lambda x, o=o: getattr(x, o)(-100.0).any() for o in ("gt", "ge", "ne", "__gt__", "__ne__"))),
    "other comparisons": asserted(*(lambda x, o=o: getattr(x, o)(100.0).all() for o in ("lt", "le", "__lt__", "__le__"))),
    "equal": asserted(lambda x: not (x == 0).any(), lambda x: torch.equal(x, x), lambda x: not torch.eq(x, 7).any()),
    "allclose": asserted(lambda x: torch.allclose(x, x), lambda x: torch.isclose(x, x).all()),
    "least and greatest": asserted(lambda x: x.min() > -100, lambda x: x.max().item() < 100, lambda x: x.amax() < 100),
    "argmax": asserted(lambda x: x.argmax() >= 0, lambda x: x.flatten(1).argmin(1).shape == (4,)),
    "counts": asserted(lambda x: torch.count_nonzero(x) > 0, lambda x: (x != 0).sum(2).float().mean() > 0),
    "logic": asserted(lambda x: ((x > 0) & (x < 50) | (x == 7)).any(), lambda x: torch.logical_not(x > 99).all()),
    "any of x": asserted(lambda x: x.any(), lambda x: x.all(), lambda x: torch.any(x, dim=1).any()),
    "sign": asserted(lambda x: (torch.sign(x) >= -1).all(), lambda x: not torch.signbit(x.abs()).any()),
    "rounded": asserted(lambda x: (x.round() >= -99).all(), lambda x: (x.floor().long() >= -99).all()),
    "sorted indices": asserted(lambda x: x.argsort(-1).max() == x.shape[-1] - 1),
    "printed": asserted(lambda x: str(x) and repr(x.shape) and f"{x[0, 0, 0]:.2f}"),
    "another type": asserted(lambda x: x.bool().any(), lambda x: x.int().sum() >= -99),
    "detached": asserted(lambda x: x.detach().numpy().min() > -100, lambda x: x.detach().clone().pow(2).sum() > 0),
}  # fmt: skip


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize("name", ["epsilon", "z+", "deep Taylor", "gradient x input"])
@pytest.mark.parametrize("where", ["pixels", "hidden"])
def test_looking_changes_nothing(where, name, looks):
    plain, x, method = network(), data(), ALL[name]()
    if where == "pixels":
        model = Last(nn.Identity(), lambda x: plain(LOOKS[looks](x)))
    else:
        front, back = plain[:2], plain[2:]
        model = Last(nn.Identity(), lambda x: back((LOOKS[looks](front(x).view(4, 2, 3)), front(x))[1]))
    target = plain(x).argmax(1)
    assert_equal(method(model, x, target), method(plain, x, target), 1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore")
def test_a_mask_of_the_input_is_a_constant(name):
    """Steps that are all zero are padding: the mask is counted as if it were given."""
    inner, x = network(), data()
    x[0, 2:] = x[2, 1:] = 0
    given = (x != 0).any(2, keepdim=True).double()
    found = Last(nn.Identity(), lambda x: inner(x * (x != 0).any(2, keepdim=True).to(x.dtype)))
    told = Last(nn.Identity(), lambda x: inner(x * given))
    if name == "integrated":
        pytest.skip("at other inputs the mask is another")
    target, method = told(x).argmax(1), ALL[name]()
    assert_equal(method(found, x, target), method(told, x, target), 1e-12)


def test_lengths_that_are_read_off_the_input():
    torch.manual_seed(2)
    lstm, out = nn.LSTM(4, 3, batch_first=True).double(), nn.Linear(3, 2).double()

    def read(x, lengths):
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return out(lstm(packed)[1][0][-1])

    x = data()
    x[1, 2:] = x[3, 1:] = 0
    found = Last(nn.Identity(), lambda x: read(x, (x.abs().sum(2) > 0).sum(1)))
    told = Last(nn.Identity(), lambda x: read(x, torch.tensor([3, 2, 3, 1])))
    for name in ("epsilon", "gradient x input"):
        assert_equal(ALL[name]()(found, x, 1), ALL[name]()(told, x, 1), 1e-12)


@pytest.mark.parametrize("targets", [[0, 2, 1, 2], torch.tensor([0, 2, 1, 2]), 1, None], ids=str)
@pytest.mark.parametrize("examples", [1, 3, 4, 9])
@pytest.mark.parametrize("name", ["epsilon", "gradient x input", "integrated"])
def test_chunks_take_the_targets_that_the_method_takes(name, examples, targets):
    model, x, method = network(), data(), ALL[name]()
    assert_equal(InChunks(method, examples)(model, x, targets), method(model, x, targets), 1e-12)
