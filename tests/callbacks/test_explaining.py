import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnnx_lightning.architectures import ConvDeep, Deep
from rnnx_lightning.callbacks import CosineSimilarity, Heatmaps
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.explain import DeepTaylor, Sensitivity
from rnnx_lightning.metrics.functional import majority_cosine_similarity

METHODS = ["Sensitivity", "GuidedBackprop", "DeepTaylor", "LRP"]


def make_trainer(tmp_path, callbacks, **options):
    return L.Trainer(
        accelerator="cpu",
        logger=TensorBoardLogger(tmp_path, name="run", version="", default_hp_metric=False),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 2, "limit_test_batches": 2, **options},
    )


def make_run(network=Deep, **data):
    torch.manual_seed(0)
    model = SequenceClassifier(network(dropout=0.1), learning_rate=1e-3)
    return model, MajoritySequences(dataset="digits", **{"batch_size": 30, **data})


def callbacks():
    return [CosineSimilarity(sequences=40, test_sequences=40), Heatmaps(sequences=3)]


def test_scores_and_pictures_of_all_methods_are_logged(tmp_path):
    model, data = make_run()
    trainer = make_trainer(tmp_path, callbacks())
    trainer.fit(model, data)
    for method in METHODS:
        assert 0 < trainer.callback_metrics[f"val/cosine/{method}"] <= 1
    trainer.test(model, data, verbose=False)
    assert all(f"test/cosine/{method}" in trainer.callback_metrics for method in METHODS)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    assert {"val/heatmaps", "test/heatmaps"} <= set(events.Tags()["images"])
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def test_scores_of_every_second_epoch(tmp_path):
    model, data = make_run()
    methods = {"SA": Sensitivity()}
    trainer = make_trainer(tmp_path, [CosineSimilarity(methods, sequences=40, every_n_epochs=2)], max_epochs=5)
    trainer.fit(model, data)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("val/cosine/SA")] == [5, 11]
    assert len(events.Scalars("val/accuracy")) == 5
    with pytest.raises(ValueError, match="every_n_epochs=0 must be at least 1"):
        CosineSimilarity(every_n_epochs=0)


@pytest.mark.parametrize("size", [None, 12, 64])
def test_the_logged_score_is_that_of_the_first_sequences(size, tmp_path):
    model, data = make_run(evaluation_batch_size=size)
    trainer = make_trainer(
        tmp_path, [CosineSimilarity({"DTD": DeepTaylor()}, sequences=40)], limit_val_batches=1.0
    )
    trainer.validate(model, data, verbose=False)
    image, label, majority = data.sequences("validation", range(40))
    expected = majority_cosine_similarity(DeepTaylor()(model.network.eval(), image, label), majority).mean()
    torch.testing.assert_close(trainer.callback_metrics["val/cosine/DTD"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("network", [Deep, ConvDeep])
def test_training_is_bit_identical_with_and_without(network, tmp_path):
    weights = []
    for number, chosen in enumerate(([], callbacks())):
        L.seed_everything(1, verbose=False)
        model, data = make_run(network)
        make_trainer(tmp_path / str(number), chosen, max_epochs=2, val_check_interval=1).fit(model, data)
        weights.append(model.state_dict())
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name]), name


@pytest.mark.parametrize(
    "options", [{"precision": "bf16-mixed"}, {"inference_mode": True}, {"inference_mode": False}]
)
def test_precision_and_inference_mode_do_not_matter(options, tmp_path):
    scores = []
    for number, chosen in enumerate(({}, options)):
        model, data = make_run()
        trainer = make_trainer(tmp_path / str(number), callbacks(), **chosen)
        trainer.validate(model, data, verbose=False)
        scores.append({k: v for k, v in trainer.callback_metrics.items() if "cosine" in k})
    assert scores[0] == scores[1]


def test_a_compiled_model_gives_the_same_scores(tmp_path):
    scores = []
    for compiled in (False, True):
        model, data = make_run()
        if compiled:
            model.network.compile(backend="eager")
        trainer = make_trainer(tmp_path / str(compiled), callbacks())
        trainer.validate(model, data, verbose=False)
        scores.append({k: v for k, v in trainer.callback_metrics.items() if "cosine" in k})
    assert scores[0] == scores[1]


def test_checkpoints_and_early_stopping_can_monitor_a_score(tmp_path):
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    monitor = {"monitor": "val/cosine/Sensitivity", "mode": "max"}
    model, data = make_run()
    checkpoint = ModelCheckpoint(tmp_path, **monitor)
    chosen = [checkpoint, EarlyStopping(**monitor), CosineSimilarity({"Sensitivity": Sensitivity()}, sequences=20)]
    make_trainer(tmp_path, chosen).fit(model, data)
    assert 0 < checkpoint.best_model_score <= 1


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="sequences=0"):
        CosineSimilarity(sequences=0)
    with pytest.raises(ValueError, match="sequences=0"):
        Heatmaps(sequences=0)
