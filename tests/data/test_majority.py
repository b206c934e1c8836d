import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnx_lightning.data.majority import ImpossibleSequencesError, draw_plan, pool_of_batch
from rnnx_lightning.seeding import seeded_generator

settings.register_profile("quick", deadline=None, max_examples=60)
settings.load_profile("quick")


def make_labels(counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]


def draw(labels, seed=0, **kwargs):
    kwargs = {"samples": 3, "majority_size": 2, **kwargs}
    return draw_plan(labels, generator=seeded_generator("test", seed), **kwargs)


@given(
    counts=st.lists(st.integers(2, 15), min_size=2, max_size=6),
    samples=st.integers(1, 9),
    majority=st.integers(1, 6),
    pool=st.none() | st.integers(1, 50),
    shuffle=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_plan_is_a_majority_plan_or_is_refused(counts, samples, majority, pool, shuffle, seed):
    labels = make_labels(counts)
    arguments = {"samples": samples, "majority_size": majority, "pool_size": pool, "shuffle": shuffle}
    try:
        plan = draw(labels, seed, **arguments)
    except ImpossibleSequencesError:
        capacity = sorted(min(c, majority - 1) for c in counts)[:-1]
        assert majority > samples or min(counts) < majority or samples - majority > sum(capacity)
        return
    shown = labels[plan.index]
    assert plan.index.shape == (len(labels), samples)
    assert torch.equal(shown == plan.label[:, None], plan.majority)
    assert (plan.majority.sum(1) == majority).all()
    per_class = torch.nn.functional.one_hot(shown, len(counts)).sum(1)
    per_class.scatter_(1, plan.label[:, None], 0)
    assert per_class.max() < majority or samples == majority
    distinct = plan.index.sort(1).values.diff(dim=1)
    assert (distinct > 0).all()
    # One sequence for every image: each class is the label as often as it has images.
    assert torch.equal(torch.bincount(plan.label, minlength=len(counts)), torch.tensor(counts))


@given(seed=st.integers(0, 10**9))
def test_same_seed_same_plan_other_seed_other_plan(seed):
    labels = make_labels([20, 20, 20])
    for one, two in zip(draw(labels, seed), draw(labels, seed), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(draw(labels, seed).index, draw(labels, seed + 1).index)


def test_plan_is_the_same_on_every_machine():
    """Pinned values: a change of the drawing would silently change every published number."""
    plan = draw(make_labels([5, 5, 5]), 3)
    assert plan.label.tolist() == PINNED_LABELS
    assert plan.index[:3].tolist() == PINNED_INDEX


PINNED_LABELS = [1, 0, 2, 0, 0, 1, 0, 1, 2, 0, 1, 2, 1, 2, 2]
PINNED_INDEX = [[10, 4, 8], [11, 2, 6], [13, 3, 1]]


def test_unshuffled_plan_keeps_the_anchors_in_order():
    labels = make_labels([10, 10, 10])
    plan = draw(labels, shuffle=False)
    assert torch.equal(plan.label, labels)
    assert (plan.index == torch.arange(30)[:, None]).any(1).all()


def test_partners_come_from_the_pool_where_it_has_them():
    labels = make_labels([200, 200, 200])
    plan = draw(labels, pool_size=100)
    for start in range(0, 600, 100):
        assert len(plan.index[start : start + 100].unique()) == 100


@pytest.mark.parametrize(
    ("batch", "classes", "majority", "pool"),
    [(1, 10, 2, 1), (50, 10, 2, 50), (100, 10, 2, 100), (198, 10, 2, 198), (200, 10, 2, 100), (202, 10, 2, 101),
     (303, 10, 2, 303), (256, 10, 2, 128), (800, 10, 2, 100), (800, 10, 4, 200), (800, 40, 2, 400), (800, 4, 2, 50)],
)  # fmt: skip
def test_a_large_batch_is_cut_into_pools(batch, classes, majority, pool):
    assert pool_of_batch(batch, classes, majority) == pool


def test_partners_and_order_are_uniform():
    labels = make_labels([4, 4, 4])
    draws = torch.stack([draw(labels, seed, shuffle=False).index for seed in range(3000)])
    first = draws[:, 0]  # sequences anchored by image 0
    seen = torch.bincount(first.flatten(), minlength=12) / 3000
    same = (labels == labels[0]).nonzero().flatten()[1:]
    assert torch.allclose(seen[same], torch.full((3,), 1 / 3), atol=0.04)
    assert torch.allclose(seen[labels != labels[0]], torch.full((8,), 1 / 8), atol=0.03)
    position = (first == 0).float().mean(0)
    assert torch.allclose(position, torch.full((3,), 1 / 3), atol=0.04)


@pytest.mark.parametrize(
    ("counts", "arguments", "words"),
    [
        ([5, 5], {"majority_size": 4}, "between 1 and samples=3"),
        ([5, 5], {"majority_size": 0}, "between 1 and samples=3"),
        ([5, 1], {}, "class 1 has 1 images"),
        ([5, 0, 5], {}, "class 1 has 0 images"),
        ([9, 9], {"samples": 4, "majority_size": 2}, "fill only 1"),
        ([9, 9, 9], {"samples": 3, "majority_size": 1}, "fill only 0"),
    ],
)
def test_impossible_sequences_are_refused_with_the_reason(counts, arguments, words):
    with pytest.raises(ImpossibleSequencesError, match=words):
        draw(make_labels(counts), **arguments)


def test_long_sequences_on_demand():
    plan = draw(make_labels([50] * 10), samples=30, majority_size=5)
    assert plan.index.shape == (500, 30)
