import math

import pytest
import torch
from torch import nn

from rnnx_lightning import metrics
from rnnx_lightning.metrics import functional

MAJORITY = torch.tensor([[True, False, True]])


def spread(*samples):
    """Relevance with these sums on the samples."""
    return torch.tensor(samples, dtype=torch.float32).div(784).repeat_interleave(28).expand(1, 1, 28, -1).clone()


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ((1, 0, 1), 1.0),
        ((0, 1, 0), 0.0),
        ((0, 0, 0), 0.0),
        ((1, 1, 1), 0.8165),
        ((1, 0, 0), 0.7071),
        ((-1, 0, -1), -1.0),
        ((1e-30, 0, 1e-30), 1.0),
        ((1e30, 0, 1e30), 1.0),
    ],
)
def test_cosine_marks_on_the_scale(samples, expected):
    value = functional.majority_cosine_similarity(spread(*samples), MAJORITY)
    assert value.item() == pytest.approx(expected, abs=1e-4)


def test_relevance_on_the_last_sample_gives_0471_on_average():
    masks = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=torch.bool)
    value = functional.majority_cosine_similarity(spread(0, 0, 1).expand(3, -1, -1, -1), masks)
    assert value.mean().item() == pytest.approx(0.4714, abs=1e-4)


def test_relevance_is_summed_by_sample():
    relevance = torch.rand(4, 1, 28, 84)
    expected = torch.stack([relevance[..., 28 * s : 28 * s + 28].sum(dim=(1, 2, 3)) for s in range(3)], 1)
    torch.testing.assert_close(functional.sample_relevance(relevance, 3), expected)


SCORES = {
    "cosine": functional.majority_cosine_similarity,
    "mass": functional.relevance_mass_accuracy,
    "rank": functional.relevance_rank_accuracy,
    "conservation": lambda relevance, _: functional.conservation_error(relevance, torch.ones(len(relevance))),
    "flipping": lambda relevance, _: functional.pixel_flipping(
        nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), relevance.clone().zero_(), relevance, torch.zeros(2).long(), 14
    ).area,
}  # fmt: skip


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_relevance_with_nan_has_no_score(score):
    """A number would look as if it had been measured."""
    relevance = torch.rand(2, 1, 28, 84)
    relevance[0, 0, 3, 40] = torch.nan
    first, second = score(relevance, MAJORITY.expand(2, -1)).tolist()
    assert math.isnan(first)
    assert math.isfinite(second)


@pytest.mark.parametrize(
    "score", ["majority_cosine_similarity", "relevance_mass_accuracy", "relevance_rank_accuracy"]
)
@pytest.mark.parametrize(
    ("relevance", "majority"),
    [((4, 28, 84), (4, 3)), ((4, 1, 28, 84), (4, 5)), ((4, 1, 28, 84), (1, 3)), ((4, 1, 28, 84), (4,))],
    ids=["no channel", "width is no multiple", "mask of another batch", "labels instead of a mask"],
)
def test_a_mask_that_does_not_fit_is_refused(score, relevance, majority):
    with pytest.raises(ValueError, match=r"shapes \(B, 1, H, S \* W\) and \(B, S\), got"):
        getattr(functional, score)(torch.rand(relevance), torch.ones(majority, dtype=torch.bool))


def test_a_mask_of_numbers_is_a_mask():
    relevance, majority = torch.rand(2, 1, 28, 84), MAJORITY.expand(2, -1)
    for score in (functional.relevance_mass_accuracy, functional.relevance_rank_accuracy):
        assert torch.equal(score(relevance, majority.long()), score(relevance, majority))


def test_shapes_of_other_scores_are_not_broadcast():
    with pytest.raises(ValueError, match=r"shapes \(B, ...\) and \(B,\), got \(4, 7\) and \(4, 1\)"):
        functional.conservation_error(torch.rand(4, 7), torch.ones(4, 1))
    with pytest.raises(ValueError, match=r"W a multiple of 5 samples, got \(4, 1, 28, 84\)"):
        functional.sample_relevance(torch.rand(4, 1, 28, 84), 5)


def test_mass_accuracy_is_the_share_on_majority_samples():
    assert functional.relevance_mass_accuracy(spread(3, 2, 5), MAJORITY).item() == pytest.approx(0.8)
    assert functional.relevance_mass_accuracy(spread(3, -2, 5), MAJORITY).item() == pytest.approx(1.0)
    assert functional.relevance_mass_accuracy(spread(0, 0, 0), MAJORITY).item() == 0


def test_rank_accuracy_is_the_share_of_the_first_pixels():
    assert functional.relevance_rank_accuracy(spread(3, 1, 2), MAJORITY).item() == 1
    assert functional.relevance_rank_accuracy(spread(3, 2, 1), MAJORITY).item() == 0.5
    relevance = torch.randperm(2352).float().view(1, 1, 28, 84)
    first = set(relevance.flatten().argsort(descending=True)[:1568].tolist())
    inside = sum(28 <= pixel % 84 < 56 for pixel in first)
    assert functional.relevance_rank_accuracy(relevance, MAJORITY).item() == pytest.approx(1 - inside / 1568)


def test_conservation_error_is_the_missing_share():
    explained = torch.tensor([2.0, 4.0, 0.0])
    relevance = torch.tensor([[1.0, 0.5], [2.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(functional.conservation_error(relevance, explained), torch.tensor([0.25, 0.0, 0.0]))


class CountsInk(nn.Module):
    """The logit of class 1 is the ink in the left third."""

    def forward(self, x):
        ink = (x[..., :28] + 1).flatten(1).sum(1) / 100
        return torch.stack([torch.zeros_like(ink), ink], dim=1)


def test_pixel_flipping_equals_a_loop_over_patches():
    torch.manual_seed(0)
    model, x, relevance = CountsInk(), torch.rand(3, 1, 28, 84), torch.rand(3, 1, 28, 84)
    flipped = functional.pixel_flipping(model, x, relevance, torch.tensor([1, 1, 0]), patch=7)
    assert flipped.curve.shape == (3, 49)
    for b in range(3):
        patches = {
            (i, j): relevance[b, 0, 7 * i : 7 * i + 7, 7 * j : 7 * j + 7].sum().item()
            for i in range(4)
            for j in range(12)
        }
        picture, curve = x[b : b + 1].clone(), []
        for i, j in [(-1, -1), *sorted(patches, key=patches.get, reverse=True)]:
            if i >= 0:
                picture[:, :, 7 * i : 7 * i + 7, 7 * j : 7 * j + 7] = -1
            curve.append(model(picture).softmax(1)[0, [1, 1, 0][b]])
        torch.testing.assert_close(flipped.curve[b], torch.stack(curve))
        area = sum((curve[k] + curve[k + 1]) / 2 for k in range(48)) / 48
        torch.testing.assert_close(flipped.area[b], area)


def test_flipping_what_matters_first_beats_a_random_order():
    x = torch.rand(20, 1, 28, 84)
    relevance = torch.zeros_like(x)
    relevance[..., :28] = 1
    flipped = functional.pixel_flipping(CountsInk(), x, relevance, torch.ones(20, dtype=torch.long))
    assert (flipped.area < flipped.random_area - 0.1).all()
    with pytest.raises(ValueError, match="patch=5 must divide"):
        functional.pixel_flipping(CountsInk(), x, relevance, torch.ones(20, dtype=torch.long), patch=5)


METRICS = {
    "MajorityCosineSimilarity": lambda r, m: functional.majority_cosine_similarity(r, m),
    "RelevanceMassAccuracy": lambda r, m: functional.relevance_mass_accuracy(r, m),
    "RelevanceRankAccuracy": lambda r, m: functional.relevance_rank_accuracy(r, m),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_the_mean_over_batches_and_ranks(name):
    torch.manual_seed(0)
    relevance = torch.randn(10, 1, 28, 84)
    majority = torch.stack([torch.randperm(3) > 0 for _ in range(10)])
    expected = METRICS[name](relevance, majority).mean()
    ranks = [getattr(metrics, name)() for _ in range(2)]
    for rank, rows in ((0, slice(0, 3)), (0, slice(3, 4)), (1, slice(4, 10))):
        ranks[rank].update(relevance[rows], majority[rows])
    both = getattr(metrics, name)()
    for state in ("total", "count"):  # what torchmetrics does over ranks: both states are sums
        setattr(both, state, sum(getattr(rank, state) for rank in ranks))
    torch.testing.assert_close(both.compute(), expected, rtol=1e-6, atol=1e-7)
    assert all(state.dim() == 0 for state in both.metric_state.values())


def test_other_metrics_accumulate():
    error = metrics.ConservationError()
    error.update(torch.tensor([[1.0]]), torch.tensor([2.0]))
    error.update(torch.tensor([[2.0]]), torch.tensor([2.0]))
    assert error.compute().item() == pytest.approx(0.25)
    x = torch.rand(4, 1, 28, 84)
    area, random = metrics.PixelFlippingArea(), metrics.PixelFlippingArea(random_order=True)
    for metric in (area, random):
        metric.update(CountsInk(), x, x, torch.ones(4, dtype=torch.long))
        assert 0 < metric.compute() < 1
    assert metrics.MajorityCosineSimilarity().compute() == 0
