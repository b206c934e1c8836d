import io
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from rnnx_lightning.explained import Explained
from rnnx_lightning.rendering.heatmaps import colour_relevance, draw_heatmaps
from rnnx_lightning.rendering.sequences import draw_sequences


def test_zero_is_white_and_the_scale_is_symmetric():
    relevance = torch.tensor([[[[-2.0, 0.0, 1.0, 2.0]]]])
    colours = colour_relevance(relevance)[0, :, 0]
    assert torch.equal(colours[:, 1], torch.ones(3))
    assert colours[0, 3] > colours[2, 3]  # positive is red
    assert colours[0, 0] < colours[2, 0]  # negative is blue
    halfway = (colours[:, 3] + 1) / 2
    torch.testing.assert_close(colours[:, 2], halfway, rtol=0, atol=0.01)


def test_no_relevance_is_all_white_and_scale_does_not_matter():
    assert torch.equal(colour_relevance(torch.zeros(2, 1, 4, 4)), torch.ones(2, 3, 4, 4))
    relevance = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(colour_relevance(relevance), colour_relevance(relevance * 1e-20))


def test_nan_is_grey():
    """White would be no relevance."""
    relevance = torch.randn(2, 1, 4, 4)
    relevance[0, 0, 1, 2] = torch.nan
    first, second = colour_relevance(relevance)
    assert torch.equal(first, torch.full((3, 4, 4), 0.6))
    assert second.amax() > 0.6


def as_pixels(figure: Figure):
    stream = io.BytesIO()
    figure.savefig(stream)
    return Image.open(stream)


def test_pictures_have_a_row_a_sequence_and_a_column_a_method():
    image, label = torch.rand(4, 1, 28, 84) * 2 - 1, torch.tensor([0, 1, 2, 3])
    majority = torch.tensor([[1, 1, 0]] * 4, dtype=torch.bool)
    names = ["T-shirt/top", "Trouser", "Pullover", "Dress"]
    relevance = {"SA": torch.rand_like(image), "LRP": torch.randn_like(image)}
    scores = {name: torch.ones(4) for name in relevance}
    scores = {"cosine": scores, "mass": {"SA": torch.zeros(4)}}
    explained = Explained(image, label, label.flip(0), majority, relevance, scores)
    figure = draw_heatmaps(explained, names)
    written = [text.get_text() for text in figure.axes[0].texts]
    assert {"input", "SA", "LRP", "T-shirt/top\n→ Dress", "1.00"} <= set(written)
    assert "0.00" not in written  # of the second score
    assert len(figure.axes[0].patches) == 4 * 3 * 2  # two frames a sequence and column
    assert figure.texts[0].get_text().endswith("numbers: cosine")
    unknown = draw_heatmaps(replace(explained, majority=None, scores={}), names)
    assert not unknown.axes[0].patches
    assert "1.00" not in [text.get_text() for text in unknown.axes[0].texts]
    assert as_pixels(figure).width > 84 * 3 * 2
    assert as_pixels(draw_sequences(image, label, label, majority, names)).height > 100


def test_what_cannot_be_drawn_is_refused():
    image, label = torch.rand(2, 1, 28, 84), torch.tensor([3, 1])
    majority = torch.ones(2, 3, dtype=torch.bool)
    explained = Explained(image, label, label, majority, {"LRP": image}, {})
    for make, words in [
        (lambda: draw_heatmaps(explained, ["a", "b"]), "there are 2 class_names, but a sequence of class 3"),
        (lambda: draw_heatmaps(explained.first(0), list("abcd")), "one or more sequences"),
        (
            lambda: draw_heatmaps(replace(explained, relevance={"LRP": image[:1]}), list("abcd")),
            "relevance by 'LRP'",
        ),
        (lambda: draw_sequences(image, label[:1], label, majority, list("abcd")), r"\(1,\) and \(2,\)"),
        (lambda: draw_sequences(image, label, label, majority, list("abcd"), columns=0), "columns=0"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
