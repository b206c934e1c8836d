import pytest
import torch
from torch import nn

from rnnx_lightning.metrics import DeletionArea, functional
from rnnx_lightning.metrics.deletion import deletion, patches


class Head(nn.Module):
    def __init__(self, entries, classes=3):
        super().__init__()
        torch.manual_seed(1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(entries, classes))

    def forward(self, x):
        return self.head(x)


def test_patches_of_a_picture_are_pixel_flipping():
    model, x, relevance = Head(28 * 84), torch.rand(5, 1, 28, 84), torch.randn(5, 1, 28, 84)
    target = torch.tensor([0, 1, 2, 0, 1])
    known = functional.pixel_flipping(model, x, relevance, target, patch=7)
    for at_once in (1, 5, 64, 10000):
        found = deletion(model, x, relevance, target, patches((1, 28, 84), (1, 7, 7)), -1.0, at_once=at_once)
        torch.testing.assert_close(found.curve, known.curve)
        torch.testing.assert_close(found.random_curve, known.random_curve)


def test_any_parts_equal_a_loop_over_them():
    torch.manual_seed(0)
    parts = torch.tensor([[0, 2, 1], [2, 2, 0], [3, 3, 1], [0, 1, 4]])  # scattered over (T, V)
    model, x, relevance = Head(12), torch.randn(4, 4, 3), torch.randn(4, 4, 3)
    baseline = torch.randn(3)  # the mean of each variable, say
    target = torch.tensor([2, 0, 1, 1])
    found = deletion(model, x, relevance, target, parts, baseline, at_once=7)
    for b in range(4):
        score = [float(relevance[b][parts == p].sum()) for p in range(5)]
        left, curve = x[b].clone(), [model(x[b : b + 1]).softmax(1)[0, target[b]].detach()]
        for part in sorted(range(5), key=score.__getitem__, reverse=True):
            for t in range(4):
                for v in range(3):
                    if parts[t, v] == part:
                        left[t, v] = baseline[v]
            curve.append(model(left[None]).softmax(1)[0, target[b]].detach())
        torch.testing.assert_close(found.curve[b], torch.stack(curve))
        assert found.random_curve[b][[0, -1]].tolist() == pytest.approx([float(curve[0]), float(curve[-1])])


class Count(nn.Module):
    """The logit of class 1 is how often token 7 is there."""

    def forward(self, tokens):
        found = (tokens == 7).sum(1).float()
        return torch.stack([torch.zeros_like(found), found], 1)


def test_tokens_go_one_by_one():
    tokens = torch.tensor([[7, 1, 7, 3], [2, 7, 5, 6]])
    found = deletion(Count(), tokens, (tokens == 7).float(), torch.tensor([1, 1]), patches((4,), (1,)), 0)
    expected = torch.tensor([[2.0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]).sigmoid()
    torch.testing.assert_close(found.curve, expected)
    worst = deletion(Count(), tokens, -(tokens == 7).float(), torch.tensor([1, 1]), patches((4,), (1,)), 0)
    assert (worst.area > found.area).all()


def test_parts_are_numbered_in_order():
    assert patches((4, 2), (2, 2)).tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]
    assert patches((2, 4), (1, 2)).tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert patches((3,), (1,)).tolist() == [0, 1, 2]


def test_the_mean_area_accumulates():
    tokens = torch.tensor([[7, 1, 7, 3], [2, 7, 5, 6]])
    metric = DeletionArea([1], 0)
    for row in tokens:
        metric.update(Count(), row[None], (row[None] == 7).float(), torch.tensor([1]))
    whole = deletion(Count(), tokens, (tokens == 7).float(), torch.tensor([1, 1]), patches((4,), (1,)), 0)
    assert float(metric.compute()) == pytest.approx(float(whole.area.mean()))


def test_what_does_not_fit_is_refused():
    x, target = torch.rand(2, 4), torch.tensor([0, 0])
    for parts, relevance, words in [
        (torch.tensor([0, 1, 3, 3]), x, "without gaps, got .0, 1, 3."),
        (torch.tensor([-1, 0, 1, 2]), x, "from 0 on"),
        (torch.tensor([0, 1, 2]), x, "and parts that of an example"),
        (patches((4,), (1,)), x[:, :3], "the shape of x"),
    ]:
        with pytest.raises(ValueError, match=words):
            deletion(Head(4), x, relevance, target, parts, 0.0)
    with pytest.raises(ValueError, match=r"a class for each of 2 examples, got \(3,\)"):
        deletion(Head(4), x, x, torch.zeros(3).long(), patches((4,), (1,)), 0.0)
    with pytest.raises(ValueError, match=r"parts of size \(3,\) must divide examples of shape \(4,\)"):
        patches((4,), (3,))
