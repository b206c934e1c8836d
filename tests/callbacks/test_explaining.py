import inspect

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics import Metric

from rnnx_lightning import metrics
from rnnx_lightning.architectures import ConvDeep, Deep
from rnnx_lightning.callbacks import Explainability, ResultTable
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.explain import (
    LRP,
    Attributor,
    Composite,
    DeepTaylor,
    Epsilon,
    NothingToExplainWarning,
    Sensitivity,
)
from rnnx_lightning.explained import ScoredMethods
from rnnx_lightning.metrics import functional
from rnnx_lightning.metrics.relevance import SequenceMean
from rnnx_lightning.schedule import adam

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
    model = SequenceClassifier(network(dropout=0.1), optimizer=adam(1e-3))
    return model, MajoritySequences(dataset="digits", **{"batch_size": 30, **data})


def all_scores():
    return {
        "cosine": metrics.MajorityCosineSimilarity(),
        "mass": metrics.RelevanceMassAccuracy(),
        "rank": metrics.RelevanceRankAccuracy(),
        "flipping": metrics.PixelFlippingArea(patch=14),
        "conservation": metrics.ConservationError(),
    }


def callbacks():
    return [Explainability(sequences=40, test_sequences=40, pictures=3)]


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
    trainer = make_trainer(tmp_path, [Explainability(methods, sequences=40, every_n_epochs=2)], max_epochs=5)
    trainer.fit(model, data)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0, "images": 0}).Reload()
    assert [event.step for event in events.Scalars("val/cosine/SA")] == [5, 11]
    assert [event.step for event in events.Images("val/heatmaps")] == [5, 11]
    assert len(events.Scalars("val/accuracy")) == 5
    with pytest.raises(ValueError, match="every_n_epochs=0 must be at least 1"):
        Explainability(every_n_epochs=0)


@pytest.mark.parametrize("size", [None, 12, 64])
def test_every_logged_score_is_that_of_the_first_sequences(size, tmp_path):
    """By hand, from explanations of their own, all sequences at once."""
    model, data = make_run(evaluation_batch_size=size)
    methods = {"DTD": DeepTaylor(), "Epsilon": LRP(Epsilon(1e-2)), "SA": Sensitivity()}
    trainer = make_trainer(tmp_path, [Explainability(methods, all_scores(), sequences=40)], limit_val_batches=1.0)
    trainer.validate(model, data, verbose=False)
    image, label, majority = data.sequences("validation", range(40))
    network = model.network.eval()
    with torch.no_grad():
        logit = network(image)[range(40), label]
    expected = {}
    for name, method in methods.items():
        relevance = method(network, image, label)
        expected[f"val/cosine/{name}"] = functional.majority_cosine_similarity(relevance, majority)
        expected[f"val/mass/{name}"] = functional.relevance_mass_accuracy(relevance, majority)
        expected[f"val/rank/{name}"] = functional.relevance_rank_accuracy(relevance, majority)
        expected[f"val/flipping/{name}"] = functional.pixel_flipping(network, image, relevance, label, 14).area
        sent = {"DTD": logit.clamp(min=0), "Epsilon": logit}.get(name)
        if sent is not None:
            expected[f"val/conservation/{name}"] = functional.conservation_error(relevance, sent)
    assert (logit < 0).any()  # so that what was sent down differs
    logged = {key: value for key, value in trainer.callback_metrics.items() if key.count("/") == 2}
    assert logged == {
        key: pytest.approx(value.mean().item(), rel=1e-5, abs=1e-6) for key, value in expected.items()
    }


class Counting(Attributor):
    """Sensitivity that counts the sequences that it explains."""

    def __init__(self):
        self.seen = []

    def _relevance(self, model, x, target):
        self.seen += [picture.sum().item() for picture in x]
        return Sensitivity()._relevance(model, x, target)


def test_each_sequence_is_explained_once_whatever_is_asked_of_it(tmp_path):
    model, data = make_run()
    method = Counting()
    chosen = [Explainability({"A": method}, all_scores(), sequences=50, test_sequences=20, pictures=4)]
    trainer = make_trainer(tmp_path, chosen, max_epochs=2)
    trainer.fit(model, data)
    assert len(method.seen) == 2 * 50
    assert len(set(method.seen)) == 50
    trainer.test(model, data, verbose=False)
    assert len(method.seen) == 2 * 50 + 20


class LargestPixel(Metric):
    """A score of a user's own that is no mean; what it can do without is given where it is known."""

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = power
        self.add_state("largest", torch.tensor(0.0), dist_reduce_fx="max")

    def update(self, relevance, image=None, explained=None, weight=1.0):
        assert image is not None
        assert explained is None  # of a gradient
        assert weight == 1
        self.largest = torch.maximum(self.largest, relevance.abs().amax() ** self.power)

    def compute(self):
        return self.largest


def test_any_metric_is_a_score(tmp_path):
    model, data = make_run()
    chosen = [Explainability({"SA": Sensitivity()}, {"largest": LargestPixel(2.0)}, sequences=40, pictures=2)]
    trainer = make_trainer(tmp_path, chosen)
    trainer.validate(model, data, verbose=False)
    image, label, _ = data.sequences("validation", range(40))
    expected = Sensitivity()(model.network.eval(), image, label).abs().amax() ** 2
    torch.testing.assert_close(trainer.callback_metrics["val/largest/SA"], expected, rtol=1e-5, atol=0)


class Sought(SequenceMean):
    def update(self, relevance, treasure):
        self.add(relevance.sum((1, 2, 3)) * treasure)


def test_a_score_that_asks_for_the_unknown_is_refused():
    with pytest.raises(ValueError, match="score 'mine', Sought, needs treasure: its `update` may have relevance"):
        Explainability(scores={"mine": Sought()})


def test_scores_of_single_sequences_are_those_of_the_metrics():
    """And what cannot be known is left out: the majority of a user's own picture, what a gradient sends down."""
    torch.manual_seed(0)
    network, image = Deep().eval(), torch.rand(6, 1, 28, 84) * 2 - 1
    label = torch.arange(6)
    majority = torch.tensor([[True, True, False]]).expand(6, 3)
    methods = {"SA": Sensitivity(), "LRP": LRP(Composite(Epsilon(1e-3)))}
    for known in (majority, None):
        scored = ScoredMethods(methods, all_scores())
        explained = scored.explain(network, image, label, known, label)
        names = {"flipping", "conservation"} | (set() if known is None else {"cosine", "mass", "rank"})
        assert explained.scores.keys() == names
        assert explained.scores["conservation"].keys() == {"LRP"}
        for name, by_method in explained.scores.items():
            for method, values in by_method.items():
                assert values.shape == (6,)
                torch.testing.assert_close(values.mean(), scored.metrics[name][method].compute())
        few = explained.first(2)
        assert torch.equal(few.relevance["LRP"], explained.relevance["LRP"][:2])
        assert torch.equal(few.scores["flipping"]["SA"], explained.scores["flipping"]["SA"][:2])
        assert (few.majority is None) == (known is None)


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_public_metric_can_be_a_score(name):
    assert inspect.signature(getattr(metrics, name).update).parameters.keys() > {"relevance"}
    if name == "Quantus":
        pytest.importorskip("quantus")
    needed = {"DeletionArea": {"size": [1, 28, 7]}, "Quantus": {"metric": "Sparseness"}}
    ScoredMethods({}, {name: getattr(metrics, name)(**needed.get(name, {}))})


def test_the_table_shows_methods_as_rows_and_scores_as_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    model, data = make_run()
    methods = {"SA": Sensitivity(), "DTD": DeepTaylor()}
    trainer = make_trainer(tmp_path, [Explainability(methods, all_scores(), test_sequences=20), ResultTable()])
    trainer.test(model, data, verbose=False)
    lines = capsys.readouterr().out.splitlines()
    (header,) = (line for line in lines if "conservation" in line)
    order = [header.index(name) for name in ("method", *all_scores())]
    assert order == sorted(order)
    values = trainer.callback_metrics
    for name in methods:
        (row,) = (line for line in lines if f" {name} " in line)
        shown = [f"{values[f'test/{s}/{name}']:.4f}" for s in all_scores() if f"test/{s}/{name}" in values]
        assert [cell for cell in row.split() if cell[0].isdigit()] == shown
    assert any("test/accuracy" in line for line in lines)
    assert not any("test/cosine" in line for line in lines)


@pytest.mark.parametrize("network", [Deep, ConvDeep])
def test_training_is_bit_identical_with_and_without(network, tmp_path):
    weights = []
    for number, chosen in enumerate(([], [Explainability(scores=all_scores(), sequences=40)])):
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
        trainer = make_trainer(tmp_path / str(number), [Explainability(None, all_scores(), 40)], **chosen)
        trainer.validate(model, data, verbose=False)
        scores.append({k: v for k, v in trainer.callback_metrics.items() if k.count("/") == 2})
    assert len(scores[0]) == 4 * 4 + 2
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
    chosen = [checkpoint, EarlyStopping(**monitor), Explainability({"Sensitivity": Sensitivity()}, sequences=20)]
    make_trainer(tmp_path, chosen).fit(model, data)
    assert 0 < checkpoint.best_model_score <= 1


def test_impossible_numbers_are_refused():
    for name in ("sequences", "test_sequences"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            Explainability(**{name: 0})
    with pytest.raises(ValueError, match="pictures=-1"):
        Explainability(pictures=-1)


def test_a_class_is_neither_a_method_nor_a_score():
    with pytest.raises(ValueError, match=r"method 'LRP' must be an Attributor, such as LRP\(\), got <class"):
        ScoredMethods({"LRP": LRP}, {})
    with pytest.raises(ValueError, match=r"score 'cosine' must be a torchmetrics\.Metric, got <class"):
        ScoredMethods({}, {"cosine": metrics.MajorityCosineSimilarity})


def test_a_warning_names_the_line_that_runs_the_trainer(tmp_path):
    """Not one of Lightning, which calls us."""
    trainer = make_trainer(tmp_path, [Explainability(sequences=50, pictures=0)])
    with pytest.warns(NothingToExplainWarning) as told:
        trainer.validate(SequenceClassifier(Deep()), MajoritySequences("digits"), verbose=False)
    assert {warning.filename for warning in told if warning.category is NothingToExplainWarning} == {__file__}
