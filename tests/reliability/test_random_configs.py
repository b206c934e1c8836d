"""Whatever numbers a config holds: it runs, or it is refused with one clear sentence."""

import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnnx_lightning import architectures
from rnnx_lightning.classifier import SequenceClassifier, rejection_cross_entropy
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.explain import DeepTaylor
from rnnx_lightning.metrics.functional import majority_cosine_similarity
from rnnx_lightning.schedule import adam

NETWORKS = ("Shallow", "Deep", "DeepV2", "ConvDeep", "RLSTM", "ConvRLSTM", "RGRU", "LSTM", "GRU")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    network=st.sampled_from(NETWORKS),
    columns=st.integers(-1, 30),
    samples=st.integers(-1, 8),
    majority_size=st.integers(-1, 6),
    batch_size=st.integers(-1, 40),
    dropout=st.floats(-0.5, 1.5),
    stationary=st.booleans(),
    folds=st.none() | st.integers(0, 6),
    fold=st.integers(-1, 6),
    validation_share=st.floats(-0.2, 1.2),
    sampling=st.sampled_from(["pooled", "published"]),
    learning_rate=st.floats(),
)
def test_a_random_config_runs_or_is_refused(
    network, columns, samples, majority_size, batch_size, dropout, stationary, folds, fold, validation_share, sampling,
    learning_rate,
):  # fmt: skip
    try:
        net = getattr(architectures, network)(columns=columns, dropout=dropout, stationary_dropout=stationary)
        model = SequenceClassifier(net, optimizer=adam(learning_rate))
        data = MajoritySequences(
            dataset="digits", samples=samples, majority_size=majority_size, columns=columns, batch_size=batch_size,
            folds=folds, fold=fold, validation_share=validation_share, sampling=sampling,
        )  # fmt: skip
        data.setup()
        loader = data.train_dataloader()
    except ValueError as refusal:
        if not re.search(r"\d|\binf\b|\bnan\b", str(refusal)):
            pytest.fail(f"names no number that does not fit: {refusal}")
        return
    batch = data.gather(next(iter(loader)))
    loss = rejection_cross_entropy(model.logits(batch), batch.label)
    loss.backward()
    assert loss.isfinite()
    assert batch.image.shape == (batch_size, 1, 28, 28 * samples)
    few = batch.first(2)
    score = majority_cosine_similarity(DeepTaylor()(net, few.image, few.label), few.majority)
    assert ((score >= -1) & (score <= 1)).all()


def test_the_random_configs_are_not_all_refused():
    data = MajoritySequences(dataset="digits", samples=5, majority_size=3, batch_size=10, columns=4)
    data.setup()
    batch = data.gather(next(iter(data.train_dataloader())))
    assert SequenceClassifier(architectures.RGRU(columns=4)).logits(batch).shape == (10, 10)
    with pytest.raises(ValueError, match="multiple of 4"):
        architectures.Deep(columns=4)(torch.zeros(1, 1, 28, 30))
