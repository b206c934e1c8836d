"""What each kind of operation is to relevance: how totals come to be, and how relevance goes back.

A value is handed two kinds of thing on the walk back. Its *relevance*, by whatever used the value. Or *factors*,
one a channel, by a sum that it is a term of: a contribution times its channel's factor is its relevance. A sum
that has been handed relevance turns it into factors (`walk`), and then shares factors alone.
"""

from collections.abc import Sequence

from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.refusals import UnexplainableError
from rnnx_lightning.explain.totals import Total

Part = tuple[Node, Channel]


class Row:
    """A kind of operation.

    Attributes:
        absorbs: as a sum, it hands factors to its sources, whose totals it needs.
        rectifies: it gives relevance only to what is positive.
        keeps: the walk ends here.
    """

    absorbs = True
    rectifies = False
    keeps = False

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """The totals that a total is made of."""
        return [(source, channel) for source in node.sources if source is not None]

    def total(self, node: Node, channel: Channel) -> Total | None:
        """A total of a sum, from the totals of its parts; None where there is nothing in the channel."""
        raise NotImplementedError

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Hand on the factor of a channel."""
        raise NotImplementedError

    def finish(self, node: Node) -> None:
        """All factors have been shared."""

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Hand on the relevance of what is no sum: all to the one source."""
        (source,) = node.sources
        assert source is not None  # there would be no node
        source.receive(relevance.sum_to_size(source.shape))


class Leaf(Row):
    """The input."""

    absorbs = False
    keeps = True


class Pass(Row):
    """An activation with f(0) = 0, a gated signal: all to the source."""

    absorbs = False


class Relu(Pass):
    """As any activation; what is not active has no relevance."""

    rectifies = True


class Opaque(Row):
    """There is no way back."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Refused.

        Raises:
            UnexplainableError: relevance has come here.
        """
        raise UnexplainableError(node.refusal or node.reason)


class Embedding(Row):
    """Tokens were looked up in a table: a token gets what all entries of its vector get."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Summed over the vector."""
        (source,) = node.sources
        assert source is not None  # there would be no node
        source.receive(relevance.sum(-1))
