"""Relevance of tokens, as HTML and as text for a terminal."""

import html
from collections.abc import Sequence

from rich.style import Style
from rich.text import Text
from torch import Tensor

from rnnx_lightning.rendering.heatmaps import NEGATIVE, POSITIVE

Colour = tuple[int, int, int]


def token_colours(relevance: Tensor) -> list[Colour]:
    """Colours of tokens: red for positive, blue for negative, white for zero; the scale is symmetric.

    Args:
        relevance: (T,).

    Returns:
        (red, green, blue) of each token, 0 to 255.

    Raises:
        ValueError: relevance is not one finite number per token.

    Examples:
        >>> import torch
        >>> token_colours(torch.tensor([0.0, 1.0, -2.0]))
        [(255, 255, 255), (217, 139, 149), (33, 102, 171)]
    """
    if relevance.dim() != 1 or not bool(relevance.isfinite().all()):
        raise ValueError(f"relevance must be one finite number per token (T,), got shape {tuple(relevance.shape)}")
    values = relevance.double().tolist()
    most = max(map(abs, values), default=0) or 1.0
    colours = []
    for value in values:
        red, green, blue = (
            round(255 * (1 + abs(value) / most * (end - 1))) for end in (NEGATIVE if value < 0 else POSITIVE)
        )
        colours.append((red, green, blue))
    return colours


def _ink(ground: Colour) -> str:
    """Black or white, whichever is easier to read on a background."""
    red, green, blue = ((channel / 255) ** 2.2 for channel in ground)
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#ffffff"


def _pairs(tokens: Sequence[str], relevance: Tensor) -> list[tuple[str, float, Colour]]:
    colours = token_colours(relevance)
    if len(tokens) != len(colours):
        raise ValueError(f"{len(tokens)} tokens, but {len(colours)} values of relevance")
    if other := [token for token in tokens if not isinstance(token, str)]:
        raise ValueError(f"a token must be text, got {other[0]!r}: give the words in place of their numbers")
    return list(zip(tokens, relevance.tolist(), colours, strict=True))


def tokens_as_html(tokens: Sequence[str], relevance: Tensor, separator: str = " ") -> str:
    """Tokens as one self-contained HTML paragraph; pointing at a token shows its relevance.

    Args:
        tokens: T strings.
        relevance: (T,).
        separator: text between two tokens.

    Raises:
        ValueError: tokens and relevance do not fit.

    Examples:
        >>> import torch
        >>> print(tokens_as_html(["good"], torch.tensor([1.0])))
        <p><span style="background:#b2172b;color:#ffffff" title="1">good</span></p>
    """
    spans = [
        f'<span style="background:#{r:02x}{g:02x}{b:02x};color:{_ink((r, g, b))}" title="{value:.4g}">'
        f"{html.escape(token)}</span>"
        for token, value, (r, g, b) in _pairs(tokens, relevance)
    ]
    return f"<p>{separator.join(spans)}</p>"


def tokens_as_text(tokens: Sequence[str], relevance: Tensor, separator: str = " ") -> Text:
    """Tokens as coloured text for a terminal: `rich.print(tokens_as_text(...))`.

    Args:
        tokens: T strings.
        relevance: (T,).
        separator: text between two tokens.

    Raises:
        ValueError: tokens and relevance do not fit.

    Examples:
        >>> import torch
        >>> text = tokens_as_text(["good", "film"], torch.tensor([1.0, 0.0]))
        >>> text.plain
        'good film'
    """
    parts = []
    for token, _, (r, g, b) in _pairs(tokens, relevance):
        parts.append(Text(token, Style(color=_ink((r, g, b)), bgcolor=f"#{r:02x}{g:02x}{b:02x}")))
    return Text(separator).join(parts)
