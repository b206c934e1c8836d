import html.parser
import re
import runpy

import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image
from rich.console import Console

from rnnx_lightning.rendering.series import draw_series
from rnnx_lightning.rendering.tokens import token_colours, tokens_as_html, tokens_as_text


def test_colours_are_symmetric_with_zero_in_white():
    red, white, blue, half = token_colours(torch.tensor([2.0, 0.0, -2.0, 1.0]))
    assert white == (255, 255, 255)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert half == pytest.approx([(255 + end) / 2 for end in red], abs=1)
    assert token_colours(torch.zeros(2)) == [white, white]
    assert token_colours(torch.tensor([2e-30, 1e-30])) == [red, half]
    assert token_colours(torch.zeros(0)) == []


class Spans(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag == "span":
            self.found.append(dict(attributes))

    def handle_data(self, text):
        if self.found and "text" not in self.found[-1]:
            self.found[-1]["text"] = text


def test_tokens_as_html_show_their_numbers_and_are_escaped():
    tokens, relevance = ["a<b>", "&amp;", '"c"', "d"], torch.tensor([0.5, -0.25, 0.0, 0.123456])
    page = tokens_as_html(tokens, relevance)
    parser = Spans()
    parser.feed(page)
    assert [one["text"] for one in parser.found] == tokens
    assert [float(one["title"]) for one in parser.found] == pytest.approx(relevance.tolist(), rel=1e-3)
    for one, (r, g, b) in zip(parser.found, token_colours(relevance), strict=True):
        assert f"background:#{r:02x}{g:02x}{b:02x}" in one["style"]
    assert "<b>" not in page


def test_ink_is_read_on_its_ground():
    """Contrast by WCAG's formula: at least 4.5 on all grounds."""

    def luminance(colour):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    text = tokens_as_text([str(n) for n in range(101)], torch.linspace(-1, 1, 101), separator="")
    for span in text.spans:
        ground, ink = (luminance(colour.get_truecolor()) for colour in (span.style.bgcolor, span.style.color))
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 4.5


def test_tokens_on_a_terminal_keep_brackets_and_words():
    console = Console(record=True, width=40, color_system="truecolor", force_terminal=True)
    text = tokens_as_text(["[red]", "is", "good"], torch.tensor([0.0, 1.0, -1.0]))
    assert text.plain == "[red] is good"
    console.print(text)
    (r, g, b) = token_colours(torch.tensor([0.0, 1.0, -1.0]))[1]
    assert f"48;2;{r};{g};{b}m" in console.export_text(styles=True)


def test_series_have_their_relevance_behind_them():
    series, relevance = torch.randn(12, 3), torch.zeros(12, 3)
    relevance[4, 1], relevance[9, 2] = 2.0, -1.0
    figure = draw_series(series, relevance, ["a", "b", "c"], "title")
    *axes, bar = figure.axes
    assert [axis.get_ylabel() for axis in axes] == ["a", "b", "c"]
    for number, axis in enumerate(axes):
        (line,) = axis.lines
        np.testing.assert_allclose(line.get_ydata(), series[:, number])
        (ground,) = axis.images
        np.testing.assert_allclose(ground.get_array()[0], relevance[:, number])
        assert ground.get_clim() == (-2.0, 2.0)  # one scale for all
        assert ground.get_extent()[:2] == [-0.5, 11.5]
        low, high = axis.get_ylim()
        assert low < float(series[:, number].min()) < float(series[:, number].max()) < high
    assert bar.get_ylabel() == "relevance"
    colours = axes[1].images[0].to_rgba(axes[1].images[0].get_array())[0]
    assert colours[4, 0] > colours[4, 2]
    assert colours[0, :3].min() > 0.99


def test_a_constant_series_without_relevance_can_be_drawn(tmp_path):
    draw_series(torch.zeros(5, 1), torch.zeros(5, 1)).savefig(tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").width > 500


def test_missing_values_are_gaps():
    series = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan], [3.0, torch.nan]])
    first, second, _ = draw_series(series, torch.ones(3, 2, requires_grad=True)).axes
    assert first.images[0].get_extent()[2:] == pytest.approx([1 - 0.16, 3 + 0.16])
    assert second.images[0].get_extent()[2:] == pytest.approx([-1, 1])


def test_what_does_not_fit_is_refused():
    for make, words in [
        (lambda: tokens_as_html(["a"], torch.zeros(2)), "1 tokens, but 2 values"),
        (
            lambda: tokens_as_text(["a"], torch.zeros(1, 1)),
            r"one finite number per token \(T,\), got shape \(1, 1\)",
        ),
        (lambda: tokens_as_text(["a"], torch.tensor([torch.nan])), "finite"),
        (lambda: tokens_as_html(["a"], torch.tensor(1.0)), r"got shape \(\)"),
        (lambda: tokens_as_html([7], torch.zeros(1)), "a token must be text, got 7"),
        (lambda: draw_series(torch.zeros(3, 2), torch.zeros(2, 3)), "the same shape"),
        (lambda: draw_series(torch.zeros(0, 2), torch.zeros(0, 2)), "T and V at least 1"),
        (lambda: draw_series(torch.zeros(3, 2), torch.zeros(3, 2), ["a"]), "1 names for 2 variables"),
        (lambda: draw_series(torch.zeros(3, 2), torch.full((3, 2), torch.inf)), "not finite"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()


def test_small_networks_on_what_packages_bring(tmp_path):
    results = runpy.run_path(str(ROOT / "docs" / "text_and_series.py"))["main"](str(tmp_path))
    for scores in results.values():
        assert scores["accuracy"] > 0.9
        assert scores["area"] < scores["random"] - 0.05
    picture = (tmp_path / "words.svg").read_text()
    assert "sepal" in picture
    assert not re.search(r"url\(\s*[\"']?http", picture)
    assert (tmp_path / "words.html").read_text().count("<p>") == 10
    assert Image.open(tmp_path / "series.png").width > 500
