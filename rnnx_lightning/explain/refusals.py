"""What is said when a network does something that has no rule."""

from typing import Any


class UnexplainableError(Exception):
    """The network does something that has no rule; the message names it, its place, and what to do."""


class NothingToExplainWarning(UserWarning):
    """Some examples have no relevance to share: the explained output is not positive."""


class PixelRangeWarning(UserWarning):
    """Some pixels lie outside the range that a rule was told."""


def name_of(func: Any) -> str:
    """An operation's name, as it is written in torch."""
    name: str = func._schema.name.partition("::")[2].strip("_") if hasattr(func, "_schema") else func.__name__
    return name
