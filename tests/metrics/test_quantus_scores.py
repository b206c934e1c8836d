"""Quantus' metrics as scores, beside Quantus called by hand."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from rnnx_lightning.explain import Sensitivity
from rnnx_lightning.explained import ScoredMethods
from rnnx_lightning.metrics import Quantus


def test_without_quantus_one_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "quantus", None)
    with pytest.raises(
        ImportError, match="'Sparseness' needs Quantus, which is not installed: pip install quantus"
    ):
        Quantus("Sparseness")


def test_a_metric_of_quantus_is_a_score():
    quantus = pytest.importorskip("quantus")
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 84, 20), nn.ReLU(), nn.Linear(20, 3)).eval()
    image, label = torch.rand(6, 1, 28, 84), torch.tensor([0, 1, 2, 0, 1, 2])
    relevance = Sensitivity()(network, image, label)
    expected = quantus.Sparseness(disable_warnings=True)(
        network, image.numpy(), label.numpy(), a_batch=relevance.numpy(), device="cpu"
    )
    scored = ScoredMethods({"Sensitivity": Sensitivity()}, {"sparseness": Quantus("Sparseness")})
    for rows in (slice(0, 4), slice(4, 6)):
        explained = scored.explain(network, image[rows], label[rows], None, label[rows])
        np.testing.assert_allclose(explained.scores["sparseness"]["Sensitivity"], expected[rows], rtol=1e-5)
    assert float(scored.metrics["sparseness"]["Sensitivity"].compute()) == pytest.approx(
        np.mean(expected), rel=1e-5
    )


def test_what_gives_no_number_an_example_is_refused():
    pytest.importorskip("quantus")
    with pytest.raises(ValueError, match="quantus has no metric 'Sparsity'"):
        Quantus("Sparsity")
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 84, 3)).eval()
    image, label = torch.rand(2, 1, 28, 84), torch.tensor([0, 1])
    curves = Quantus("PixelFlipping", {"features_in_step": 28 * 28})
    with pytest.raises(ValueError, match="Quantus' PixelFlipping gives"):
        curves.update(network, image, label, Sensitivity()(network, image, label))
