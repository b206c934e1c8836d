"""The evidence networks by the book: what they compute, and their relevance in dense algebra."""

import naive
import numpy as np
import pytest
import torch

from rnnx_lightning.architectures import ConvEvidence, Evidence
from rnnx_lightning.explain import LRP, AlphaBeta, Composite, DeepTaylor, GradientTimesInput, ZBox

FEATURES, HIDDEN, CLASSES, STEPS, LIMIT, UNITS = 9, 7, 3, 12, 0.2, 2
OPTIONS = [(1, 2), (2, 2), (4, 2), (4, 1), (4, 3)]  # window and power


def relu(x):
    return np.maximum(x, 0)


def forward(network, picture, window, power):
    """Features, hidden units, evidence and memory of one sequence, step by step, and the matrices."""
    cell, weight = network.cell, network.front[1].weight.detach().numpy()
    parts = cell.window_input.weight.detach().numpy().reshape(window, HIDDEN, FEATURES)
    say = cell.evidence_input.weight.detach().numpy()
    steps = [picture[:, 7 * t : 7 * t + 7].reshape(-1) for t in range(STEPS)]
    features = [relu(weight @ step) for step in steps]
    hidden, added, memory = [], [], [np.zeros(CLASSES)]
    for t in range(STEPS):
        hidden.append(relu(sum(parts[k] @ features[t - k] for k in range(window) if t - k >= 0)))
        evidence = relu(say @ hidden[t])
        added.append(LIMIT * np.minimum(evidence / LIMIT, 1) ** (power - 1) * evidence)
        memory.append(memory[-1] + added[t].reshape(CLASSES, UNITS).sum(1))
    return weight, parts, say, steps, features, hidden, added, memory


@pytest.fixture(params=OPTIONS, ids=str)
def options(request):
    return request.param


@pytest.fixture
def network(options):
    torch.manual_seed(3)
    sizes = {"features": FEATURES, "hidden": HIDDEN, "classes": CLASSES, "units": UNITS}
    window, power = options
    network = Evidence(**sizes, window=window, limit=LIMIT, power=power).double().eval()
    with torch.no_grad():
        network.cell.evidence_input.weight.abs_()  # so that each class has evidence
    return network


def picture():
    return torch.rand(1, 1, 28, 84, dtype=torch.float64) * 2 - 1


def test_the_logits_are_the_sum_of_evidence(network, options):
    x = picture()
    *_, memory = forward(network, x[0, 0].numpy(), *options)
    np.testing.assert_allclose(network(x)[0].detach().numpy(), memory[-1], rtol=1e-12)


def by_the_book(rule, network, x, target, options):
    window, _ = options
    weight, parts, say, steps, features, hidden, added, _ = forward(network, x[0, 0].numpy(), *options)
    relevance = np.zeros((28, 84))
    at_features = [np.zeros(FEATURES) for _ in range(STEPS)]
    for t in range(STEPS):
        at_evidence = np.zeros(CLASSES * UNITS)
        own = slice(target * UNITS, (target + 1) * UNITS)
        at_evidence[own] = added[t][own]  # of the memory, its share of the sum of all steps
        at_hidden = rule(say, hidden[t], np.zeros(CLASSES * UNITS), at_evidence)
        seen = [t - k for k in range(window) if t - k >= 0]
        matrix = np.concatenate([parts[t - then] for then in seen], axis=1)
        inputs = np.concatenate([features[then] for then in seen])
        shares = rule(matrix, inputs, np.zeros(HIDDEN), at_hidden).reshape(len(seen), FEATURES)
        for then, share in zip(seen, shares, strict=True):
            at_features[then] += share
    for t in range(STEPS):
        pixels = naive.z_box(weight, steps[t], np.zeros(FEATURES), at_features[t], -1, 1)
        relevance[:, 7 * t : 7 * t + 7] = pixels.reshape(28, 7)
    return relevance


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (DeepTaylor(), naive.z_plus),
        (
            LRP(Composite(AlphaBeta(1.5, 0.5), pixels=ZBox(-1, 1))),
            lambda *args: naive.alpha_beta(*args, alpha=1.5, beta=0.5),
        ),
    ],
    ids=["DeepTaylor", "LRP"],
)
def test_relevance_equals_dense_algebra(method, rule, network, options):
    x = picture()
    for target in range(CLASSES):
        expected = by_the_book(rule, network, x, target, options)
        assert np.abs(expected).sum() > 0
        got = method(network, x, target)[0, 0].numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-14)


def test_evidence_below_and_above_the_limit_is_tried(network, options):
    """Both parts of min(e, s) are in the sequences of these tests."""
    *_, say, _, _, hidden, _, _ = forward(network, picture()[0, 0].numpy(), *options)
    evidence = np.stack([relu(say @ units) for units in hidden])
    assert ((evidence > 0) & (evidence < LIMIT)).any()
    assert (evidence > LIMIT).any()


def test_gates_get_nothing(network):
    explanation = DeepTaylor().explain(network, picture(), 0, layers=["cell.gates", "cell.evidence"])
    assert all((part == 0).all() for part in explanation.layers["cell.gates"])
    assert explanation.layers["cell.evidence"][0].sum().item() == pytest.approx(explanation.explained.item())


@pytest.mark.parametrize("cls", [Evidence, ConvEvidence])
def test_a_sample_without_evidence_gets_no_relevance(cls):
    """Nothing has a bias: pixels of 0 are no evidence, wherever they stand."""
    torch.manual_seed(0)
    network, x = cls().double().eval(), torch.rand(2, 1, 28, 84, dtype=torch.float64) * 2 - 1
    x[..., 28:56] = 0
    for method in (DeepTaylor(), LRP(alpha=1.5, beta=0.5), GradientTimesInput()):
        relevance = method(network, x, 1)
        assert (relevance[..., 28:56] == 0).all()
        assert relevance.abs().sum() > 0


@pytest.mark.parametrize(
    "options", [{"window": 0}, {"units": 0}, {"power": 0}, {"limit": 0.0}, {"limit": float("nan")}]
)
def test_impossible_options_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Evidence(**options)
