"""NaN and infinite numbers are named: in which input they are, or that the network makes them."""

import warnings

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Captum,
    Composite,
    DeepTaylor,
    Epsilon,
    Gamma,
    GradientTimesInput,
    GuidedBackprop,
    InChunks,
    Input,
    IntegratedGradients,
    NotFiniteWarning,
    Sensitivity,
    SmoothGrad,
    WSquare,
    ZPlus,
)

METHODS = {
    "z+": LRP(),
    "epsilon": LRP(Epsilon(1e-3)),
    "alpha-beta": LRP(AlphaBeta(1.5, 0.5)),
    "gamma": LRP(Gamma(0.5)),
    "w²": LRP(Composite(ZPlus(), pixels=WSquare())),
    "with a graph": LRP(Epsilon(1e-3), create_graph=True),
    "deep Taylor": DeepTaylor(-9, 9),
    "SA": Sensitivity(),
    "GB": GuidedBackprop(),
    "gradient times input": GradientTimesInput(),
    "IG": IntegratedGradients(),
    "SmoothGrad": SmoothGrad(samples=2),
    "in chunks": InChunks(LRP(), 1),
    "captum": Captum("Saliency"),
}


class Reader(nn.Module):
    """Two sequences, or a sequence and tokens, read by a ReLU network with a memory; or entries that are NaN count 0."""

    def __init__(self, cleans=False):
        super().__init__()
        torch.manual_seed(0)
        self.cleans, self.embed, self.read = cleans, nn.Embedding(5, 3), nn.GRU(3, 4, batch_first=True)
        self.out = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, one, two=None):
        one = one.nan_to_num(0.0) if self.cleans else one
        hidden = self.read(one)[0].sum(1)
        if two is not None:
            hidden = hidden + (two if two.is_floating_point() else self.embed(two)).sum((1, 2)).unsqueeze(1)
        return self.out(hidden)


def sequences(number=None):
    x = torch.rand(3, 6, 3, generator=torch.Generator().manual_seed(1))
    if number is not None:
        x[1, 2] = number
    return x


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", METHODS)
def test_the_input(method, number):
    with pytest.warns(NotFiniteWarning, match=r"^3 of (54|18) entries of the input are NaN or infinite\."):
        relevance = METHODS[method](Reader().eval(), sequences(number), 0)
    if method != "captum" and number != float("inf"):  # an infinite number may saturate a gate
        assert not relevance[1].isfinite().any()  # and is not like that of others
    assert relevance[0].isfinite().all()


@pytest.mark.parametrize("method", ["z+", "epsilon", "deep Taylor", "SA", "GB", "IG"])
@pytest.mark.parametrize("second", [sequences(), torch.ones(3, 4, dtype=torch.long)])
def test_which_input(second, method):
    with pytest.warns(NotFiniteWarning, match=r"^3 of 54 entries of input 1 \(3, 6, 3\) are NaN or infinite\."):
        METHODS[method](Reader().eval(), (sequences(float("nan")), second), 0)


@pytest.mark.parametrize("method", METHODS)
def test_the_network(method):
    model = Reader().eval()
    model.read.weight_hh_l0.data[0] = float("nan")
    with pytest.warns(NotFiniteWarning, match="although the input is finite"):
        METHODS[method](model, sequences(), 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_takes_them(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotFiniteWarning)
        METHODS[method](Reader(cleans=True).eval(), sequences(), 0)
        if method not in ("gradient times input", "IG", "SmoothGrad", "captum"):  # these compute with the input
            relevance = METHODS[method](Reader(cleans=True).eval(), sequences(float("nan")), 0)
            assert relevance.isfinite().all()


def test_the_input_as_its_own_explanation():
    with pytest.warns(NotFiniteWarning, match=r"^3 of 54 entries of the input"):
        Input()(Reader().eval(), sequences(float("nan")))


def test_inner_layers():
    with pytest.warns(NotFiniteWarning, match=r"^3 of 54 entries of the input"):
        LRP(Epsilon(1e-3)).explain(Reader().eval(), sequences(float("nan")), 0, layers=["read"])


def test_parts_of_a_batch_with_what_is_no_number():
    given = (sequences(float("nan")), sequences())
    with pytest.warns(NotFiniteWarning):
        parts = InChunks(LRP(Epsilon(1e-3)), 2)(Reader().eval(), given, 0)
    with pytest.warns(NotFiniteWarning):
        whole = LRP(Epsilon(1e-3))(Reader().eval(), given, 0)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
