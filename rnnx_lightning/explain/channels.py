"""What a sum of contributions can be asked for."""

from enum import IntEnum


class Channel(IntEnum):
    """One of the totals that a unit can be asked for, and the factor that relevance comes back with.

    A rule decides what counts as a contribution (`a_i w_ij` for most). The contributions of a unit are summed:
    all of them, the positive ones, and the magnitudes of the negative ones.
    """

    NET = 0
    POSITIVE = 1
    NEGATIVE = 2
    CONSTANT = 3  # biases, and constants that gates scale: they take a share that is lost
    COUNT = 4  # the number of contributions


FLIPPED = (Channel.NET, Channel.NEGATIVE, Channel.POSITIVE, Channel.CONSTANT, Channel.COUNT)
