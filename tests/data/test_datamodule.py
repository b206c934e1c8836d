from unittest.mock import patch

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from rnnx_lightning.architectures import Shallow
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import ImpossibleSequencesError, MajoritySequences
from rnnx_lightning.data.loader import EvaluationLoader, TrainingLoader
from rnnx_lightning.data.splits import stratified_split
from rnnx_lightning.schedule import ONE_CYCLE


def digits(**arguments):
    data = MajoritySequences(dataset="digits", **{"batch_size": 50, **arguments})
    data.prepare_data()
    data.setup()
    return data


def test_a_batch_carries_image_label_and_mask():
    data = digits()
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
    assert batch.image.shape == (50, 1, 28, 84)
    assert batch.image.dtype == torch.float32
    assert batch.image.min() == -1
    assert batch.image.max() <= 1
    assert batch.label.shape == (50,)
    assert (batch.majority.sum(1) == 2).all()


def test_pixels_stand_where_the_plan_says():
    data = digits()
    plan = data.plan("validation")
    batch = data.gather(next(iter(data.val_dataloader())))
    expected = data.images.pixels[plan.index[:50]].float() / 127.5 - 1  # (B, 3, 28, 28)
    for position in range(3):
        shown = batch.image[:, 0, :, 28 * position : 28 * (position + 1)]
        assert torch.equal(shown, expected[:, position])
    assert torch.equal(data.images.labels[plan.index] == plan.label[:, None], plan.majority)


def test_samples_with_a_margin_stand_at_places_of_their_own():
    data, plain = digits(margin=7), digits()
    shown, label, majority = data.sequences("test", range(20))
    assert shown.shape == (20, *data.picture_shape) == (20, 1, 28, 3 * 35)
    expected, label_too, majority_too = plain.sequences("test", range(20))
    assert torch.equal(label, label_too)
    assert torch.equal(majority, majority_too)
    places = set()
    for tile, image in zip(shown.split(35, dim=3), expected.split(28, dim=3), strict=True):
        for one, other in zip(tile, image, strict=True):
            (place,) = [at for at in range(8) if torch.equal(one[..., at : at + 28], other)][:1]
            assert (one[..., :place] == -1).all()
            assert (one[..., place + 28 :] == -1).all()
            places.add(place)
    assert len(places) > 3
    assert torch.equal(shown, data.sequences("test", range(20))[0])


def test_impossible_margins_are_refused():
    with pytest.raises(ValueError, match="margin=-1"):
        MajoritySequences("digits", margin=-1)
    with pytest.raises(ValueError, match=r"columns=7 must divide .* 3 x 30 = 90"):
        MajoritySequences("digits", margin=2)


def test_sequences_need_images():
    with pytest.raises(RuntimeError, match="call setup"):
        MajoritySequences(dataset="digits").sequences("test", [0])


def test_splits_go_by_their_names():
    with pytest.raises(ValueError, match="no split 'val': choose from train, validation, test"):
        digits().sequences("val", [0])
    data = MajoritySequences("digits")
    with pytest.raises(RuntimeError, match=r"the train split is not loaded: call setup\(\) first"):
        data.train_dataloader()
    data.prepare_test()
    assert len(data.sequences("test", [])[1]) == 0
    with pytest.raises(RuntimeError, match="the validation split is not loaded"):
        data.sequences("validation", [0])


def test_a_folder_may_be_given_as_a_path(tmp_path):
    """A checkpoint with a path in it could not be read without running code."""
    data = MajoritySequences("digits", data_dir=tmp_path)
    torch.save(dict(data.hparams), tmp_path / "saved")
    assert torch.load(tmp_path / "saved", weights_only=True)["data_dir"] == str(tmp_path)


@pytest.mark.parametrize("arguments", [{}, {"folds": 5, "fold": 3}, {"sampling": "published"}])
def test_no_image_crosses_splits(arguments):
    data = digits(**arguments)
    seen = {split: set(data.plan(split).index.unique().tolist()) for split in ("train", "validation", "test")}
    assert not seen["train"] & seen["validation"]
    assert not (seen["train"] | seen["validation"]) & seen["test"]
    assert sum(map(len, seen.values())) == len(data.images.labels)


def test_training_is_drawn_anew_each_epoch_but_validation_and_test_never():
    data = digits()
    assert not torch.equal(data.plan("train", 0).index, data.plan("train", 1).index)
    for split in ("validation", "test"):
        assert torch.equal(data.plan(split, 0).index, data.plan(split, 7).index)


def test_published_sequences_are_only_reshuffled():
    data = digits(sampling="published")
    one, two = data.plan("train", 0).index, data.plan("train", 1).index
    assert not torch.equal(one, two)
    assert sorted(one.tolist()) == sorted(two.tolist())


def test_most_images_of_a_pooled_batch_are_shared():
    data = digits()
    batches = list(data.train_dataloader())
    mean = sum(len(batch.positions) for batch in batches) / len(batches)
    assert mean < 1.2 * 50


def test_published_sequences_share_no_images_while_training():
    """Nor dropout masks, therefore; what is validated has none, and may."""
    data = digits(sampling="published")
    batch = next(iter(data.train_dataloader()))
    assert len(batch.positions) == 3 * 50
    assert torch.equal(batch.order.flatten(), torch.arange(150))
    rows = data.plan("train").rows(slice(0, 50))
    assert torch.equal(batch.positions[batch.order], rows.index)
    validated = next(iter(data.val_dataloader()))
    assert len(validated.positions) < 3 * 50


def test_folds_are_stratified_and_cover_every_image_once():
    labels = torch.arange(10).repeat_interleave(50)
    parts = [stratified_split(labels, seed=0, validation_share=0.5, folds=10, fold=f)[1] for f in range(10)]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(500))
    for part in parts:
        assert torch.equal(torch.bincount(labels[part]), torch.full((10,), 5))


def test_published_split_sizes(real_data_dir):
    data = MajoritySequences(dataset="mnist", data_dir=str(real_data_dir))
    data.prepare_data()
    data.setup()
    sizes = [len(data.plan(split).label) for split in ("train", "validation", "test")]
    assert sizes == [48_000, 12_000, 10_000]
    data = MajoritySequences(dataset="fashion_mnist", data_dir=str(real_data_dir), folds=10, fold=9)
    data.prepare_data()
    data.setup()
    sizes = [len(data.plan(split).label) for split in ("train", "validation", "test")]
    assert sizes == [54_000, 6_000, 10_000]
    assert data.class_names[9] == "Ankle boot"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"columns": 5}, "must divide the width"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"evaluation_batch_size": 0}, "evaluation_batch_size=0"),
        ({"validation_share": 1.5}, "validation_share=1.5"),
        ({"folds": 1}, "folds=1"),
        ({"folds": 5, "fold": 5}, "fold=5"),
        ({"samples": 0}, "samples=0"),
        ({"sampling": "fresh"}, "sampling='fresh': choose from pooled, published"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        digits(**arguments)


def test_evaluation_may_have_batches_of_its_own_size():
    data = digits(evaluation_batch_size=80)
    assert len(next(iter(data.train_dataloader())).label) == 50
    loaders = (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader())
    for loader, split in zip(loaders, ("validation", "test", "test"), strict=True):
        sizes = [len(batch.label) for batch in loader]
        assert sizes[0] == 80
        assert sum(sizes) == len(data.plan(split).label)  # the last one is short


def test_impossible_lengths_are_refused():
    with pytest.raises(ImpossibleSequencesError, match="fill only 9"):
        digits(samples=20, majority_size=2)


def test_general_lengths():
    data = digits(samples=9, majority_size=4, columns=14)
    batch = data.gather(next(iter(data.train_dataloader())))
    assert batch.image.shape == (50, 1, 28, 252)
    assert (batch.majority.sum(1) == 4).all()


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_see_what_one_rank_sees(ranks):
    data = digits()
    rows = {tuple(row) for row in data.plan("validation").index.tolist()}
    shards = [EvaluationLoader(data.plan("validation"), 16, rank, ranks) for rank in range(ranks)]
    seen = [tuple(b.positions[row].tolist()) for shard in shards for b in shard for row in b.order]
    assert len(seen) == len(rows)
    assert set(seen) == rows
    assert all(len(list(shard)) == len(shard) for shard in shards)


def test_training_batches_are_even_over_ranks_and_equal_the_global_batch():
    data = digits()
    one = TrainingLoader(lambda _: data.plan("train"), 40)
    two = [TrainingLoader(lambda _: data.plan("train"), 20, rank, 2) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1])
    for whole, *halves in zip(one, *two, strict=True):
        together = {tuple(b.positions[row].tolist()) for b in halves for row in b.order}
        assert together == {tuple(whole.positions[row].tolist()) for row in whole.order}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_most_images_of_a_pooled_batch_are_shared_on_each_of_several_devices(ranks):
    """A batch of 100 has 300 images to show; drawn from all ranks' images it would need over 200."""
    data = digits(batch_size=100)
    with patch.object(MajoritySequences, "_world_size", ranks):
        plan = data.plan("train")
    loader = TrainingLoader(lambda _: plan, 100, ranks - 1, ranks)
    sizes = [len(batch.positions) for batch in loader]
    assert sizes
    assert max(sizes) < 125


def test_training_sequences_do_not_depend_on_how_many_devices_share_a_batch():
    def drawn(batch_size, ranks):
        with patch.object(MajoritySequences, "_world_size", ranks):
            return digits(batch_size=batch_size).plan("train").index

    assert torch.equal(drawn(400, 1), drawn(100, 4))


class Seen(Callback):
    """Which images each training batch shows, by epoch and batch; and those of a loader that Lightning knows not."""

    def __init__(self):
        self.batches, self.others = {}, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches[trainer.current_epoch, batch_idx] = batch.image
        self.others.append(sum(1 for _ in trainer.datamodule.train_dataloader()))


@pytest.mark.parametrize("schedule", [ONE_CYCLE, None], ids=["loader made before the restart", "after it"])
def test_a_run_goes_on_with_the_next_batch_of_its_epoch(schedule, tmp_path, recwarn):
    def fit(*callbacks, ckpt_path=None):
        seen, data = Seen(), digits(batch_size=200)  # 5 batches
        Trainer(
            max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            limit_val_batches=0, default_root_dir=tmp_path, callbacks=[seen, *callbacks],
        ).fit(SequenceClassifier(Shallow(hidden=4, recurrent=4), lr_scheduler=schedule), data, ckpt_path=ckpt_path)  # fmt: skip
        assert len(list(data.train_dataloader())) == 5  # not what is left, once the run is over
        return seen

    whole = fit(ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1))
    assert len(whole.batches) == 15
    assert len({float(image.sum()) for image in whole.batches.values()}) == 15
    for step in (2, 5, 7, 10):
        rest = fit(ckpt_path=tmp_path / f"step={step}.ckpt")
        assert list(rest.batches) == list(whole.batches)[step:]
        assert all(torch.equal(image, whole.batches[when]) for when, image in rest.batches.items())
        assert set(rest.others) == {5}
    assert not [warning for warning in recwarn if "not resumable" in str(warning.message)]


def test_an_epoch_chooses_its_plan():
    loader = digits().train_dataloader()
    first = list(loader)
    loader.sampler.set_epoch(2)
    assert torch.equal(next(iter(loader)).label, digits().plan("train", 2).label[:50])
    loader.sampler.set_epoch(0)
    assert all(torch.equal(one.positions, again.positions) for one, again in zip(first, loader, strict=True))


def test_an_iteration_that_was_given_up_does_not_shorten_the_next():
    """Lightning's sanity check looks at two validation batches and stops."""
    loader = digits().val_dataloader()
    iterator = iter(loader)
    next(iterator), next(iterator)
    assert len(list(loader)) == len(loader)
