"""What is said when a network does something that has no rule."""


class UnexplainableError(Exception):
    """The network does something that has no rule; the message names it, its place, and what to do."""


class NothingToExplainWarning(UserWarning):
    """Some examples have no relevance to share: the explained output is not positive."""


class PixelRangeWarning(UserWarning):
    """Some pixels lie outside the range that a rule was told."""
