"""What is given by mistake gets a message in the user's own terms."""

import warnings

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    Attributor,
    Composite,
    DeepTaylor,
    Epsilon,
    GradientTimesInput,
    GuidedBackprop,
    InChunks,
    NoReLUWarning,
    NothingToExplainWarning,
    PixelRangeWarning,
    Sensitivity,
    SmoothGrad,
    TrainingModeWarning,
    ZBox,
    ZPlus,
)

X = torch.ones(3, 4)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (lambda: LRP(Epsilon), "default=Epsilon is not a rule: give an instance"),
        (lambda: Composite("epsilon"), "default='epsilon' is not a rule"),
        (lambda: Composite(ZPlus(), pixels=ZBox), "pixels=ZBox is not a rule"),
        (lambda: Composite(ZPlus(), by_name={"out": ZPlus}), r"by_name\['out'\]=ZPlus is not a rule"),
        (lambda: Composite(ZPlus(), by_type={nn.Linear: ZPlus}), r"by_type\[Linear\]=ZPlus is not a rule"),
        (lambda: Composite(ZPlus(), by_type={"Linear": ZPlus()}), "'Linear' is not a type of layer"),
    ],
)
def test_rules(rules, said):
    with pytest.raises(ValueError, match=said):
        rules()


@pytest.mark.parametrize("method", [LRP(), Sensitivity(), InChunks(LRP(), 2)])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda x: x, "got <function.*: call it in the forward"),
        (nn.Linear, "got <class.*Linear'>: create it first"),
    ],
)
def test_what_is_no_network(given, said, method):
    with pytest.raises(ValueError, match=rf"model must be a torch\.nn\.Module, {said}"):
        method(given, X, 0)
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module"):
        LRP().explain(given, X, 0)


class PerExample(Attributor):
    """A method of one's own that gives one number for each example."""

    def __init__(self, kind):
        self.kind = kind

    def _relevance(self, model, x, target):
        return self.kind(x.sum(1))


@pytest.mark.parametrize(
    ("kind", "got"), [(torch.abs, r"\(3,\)"), (torch.Tensor.numpy, "ndarray"), (lambda x: None, "NoneType")]
)
def test_a_method_that_does_not_return_relevance_of_the_input(kind, got):
    said = rf"PerExample\._relevance must return a tensor of the shape of x, \(3, 4\), got {got}"
    with pytest.raises(ValueError, match=said):
        PerExample(kind)(model(), X, 0)


class TimeFirst(nn.Module):
    """It reads (T, B, F)."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 5)

    def forward(self, x):
        return self.rnn(x)[0][-1]


@pytest.mark.parametrize("method", [LRP(Epsilon(0.1)), GradientTimesInput()])
def test_an_input_whose_first_dimension_is_not_of_examples(method):
    said = r"logits of shape \(7, classes\), got {}\. The first dimension of x counts the examples"
    with pytest.raises(ValueError, match=said.format(r"\(2, 5\)")):
        method(TimeFirst(), torch.ones(7, 2, 4), 0)
    with pytest.raises(ValueError, match=said.format(r"\(5,\)") + r": give a single one as x\[None\]"):
        method(TimeFirst(), torch.ones(7, 4), 0)


@pytest.mark.parametrize(
    ("target", "got"),
    [
        ([0.0, 1.0, 2.0], r"got \(3,\) of torch.float32"),
        (torch.zeros(3, 1, dtype=torch.long), r"got \(3, 1\)"),
        ("a", "got 'a'"),
        ([0, "a", 1], r"got \[0, 'a', 1\]"),
    ],
)
@pytest.mark.parametrize("method", [LRP(), Sensitivity()])
def test_targets(target, got, method):
    with pytest.raises(ValueError, match=rf"target must be one class or \(B,\) = \(3,\) classes, {got}"):
        method(model(), X, target)


class Reader(nn.Module):
    """Its LSTM drops units between layers."""

    def __init__(self, dropout):
        super().__init__()
        self.rnn = nn.LSTM(4, 5, 2, dropout=dropout, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0][:, -1]


@pytest.mark.parametrize("method", [LRP(Epsilon(0.1)), GradientTimesInput()])
@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(model(), nn.Dropout(0.5)), "Dropout"),
        (nn.Sequential(nn.Dropout1d(0.1), Reader(0.1)), "Dropout1d and LSTM"),
    ],
)
def test_train_mode_is_told_of_where_it_matters(network, named, method):
    x = X if named == "Dropout" else torch.ones(3, 6, 4)
    with pytest.warns(TrainingModeWarning, match=rf"depends on {named}: .* Call model\.eval\(\)"):
        method(network.train(), x, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingModeWarning)
        method(network.eval(), x, 1)
        method(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.0)).train(), X, 1)
        method(Reader(0.0).train(), torch.ones(3, 6, 4), 1)


def test_batch_statistics_are_told_of():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    with pytest.warns(TrainingModeWarning, match="depends on BatchNorm1d: .* the other examples"):
        Sensitivity()(network.train(), X, 1)


PIXELS, POSITIVE = 9 * torch.ones(2, 4), nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)).eval()
WARNINGS = {
    "pixels": (PixelRangeWarning, lambda: DeepTaylor(-1, 1)(POSITIVE, PIXELS, 1)),
    "pixels, with layers": (PixelRangeWarning, lambda: DeepTaylor(-1, 1).explain(POSITIVE, PIXELS, 1)),
    "pixels in chunks": (PixelRangeWarning, lambda: InChunks(DeepTaylor(-1, 1), 1)(POSITIVE, PIXELS, 1)),
    "nothing": (NothingToExplainWarning, lambda: LRP()(POSITIVE, PIXELS, lambda logits: 0 * logits.sum(1))),
    "nothing, with layers": (
        NothingToExplainWarning,
        lambda: LRP().explain(POSITIVE, PIXELS, lambda logits: 0 * logits.sum(1)),
    ),
    "mode": (TrainingModeWarning, lambda: LRP()(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), X, 1)),
    "mode, with layers": (
        TrainingModeWarning,
        lambda: LRP().explain(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), X, 1),
    ),
    "no ReLU": (NoReLUWarning, lambda: GuidedBackprop()(nn.Linear(4, 3), X, 1)),
    "no ReLU in an average": (NoReLUWarning, lambda: SmoothGrad(GuidedBackprop(), 2)(nn.Linear(4, 3), X, 1)),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_names_the_line_of_the_user(name):
    category, explained = WARNINGS[name]
    with pytest.warns(category) as told:
        explained()
    assert {warning.filename for warning in told} == {__file__}
