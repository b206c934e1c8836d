"""Channels: the totals of a unit's contributions."""

from enum import IntEnum


class Channel(IntEnum):
    """A total of a unit's contributions, and the factor that belongs to it in the backward pass.

    A rule decides what counts as a contribution (`a_i w_ij` for most rules). The contributions of a unit are
    summed in several ways: all of them (`NET`), only the positive ones (`POSITIVE`), and the magnitudes of the
    negative ones (`NEGATIVE`). The relevance of a contribution is the contribution times its channel's factor.
    """

    NET = 0
    POSITIVE = 1
    NEGATIVE = 2
    CONSTANT = 3  # biases, and constants scaled by gates: their share of relevance is lost
    COUNT = 4  # the number of contributions


CHANNELS = tuple(Channel)  # quicker to go through than the class

# By channel: the one that its contributions belong to after a change of sign.
FLIPPED = (Channel.NET, Channel.NEGATIVE, Channel.POSITIVE, Channel.CONSTANT, Channel.COUNT)
