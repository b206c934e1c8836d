"""How each kind of operation treats relevance: how totals are computed, and how relevance goes back.

In the backward pass, a node receives two kinds of values: *relevance*, from operations that used its value, and
*factors*, one per channel, from sums that it is a term of. The relevance of a contribution is the contribution
times the factor of its channel. A sum that receives relevance turns it into factors (`walk.close`), and passes on
only factors.
"""

from collections.abc import Sequence

from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.refusals import UnexplainableError
from rnnx_lightning.explain.totals import Total

Part = tuple[Node, Channel]


def of_terms(node: Node, terms: Sequence[Node | None], channel: Channel) -> list[Part]:
    """The totals of a channel of all terms that have it."""
    return [(term, channel) for term in terms if term is not None and has(node, term, channel)]


def has(node: Node, term: Node, channel: int) -> bool:
    """Whether a term of a sum has a channel: with a rule that only gives positive contributions, not each."""
    if channel != Channel.NEGATIVE:
        return True
    assert node.rule is not None
    assert term.rule is not None  # both are sums
    return node.rule.adapts or not term.rule.adapts


class Row:
    """A kind of operation.

    Attributes:
        absorbs: as a sum, it passes factors to its sources, and needs their totals.
        rectifies: only positive values get relevance, if nothing gives relevance to a result of 0.
        fills: a source of 0 may get relevance, as f(0) is not 0.
        keeps: the backward pass ends here.
    """

    absorbs = True
    rectifies = False
    fills = False
    keeps = False

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """The totals that a total is computed from."""
        return of_terms(node, node.sources, channel)

    def total(self, node: Node, channel: Channel) -> Total | None:
        """A total of a sum, from the totals of its parts; None if the channel is empty."""
        raise NotImplementedError

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Pass on the factor of a channel."""
        raise NotImplementedError

    def finish(self, node: Node) -> None:
        """Called after all factors were passed on."""

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Pass on the relevance of a node that is not a sum: all of it to its one source."""
        (source,) = node.sources
        assert source is not None  # else there would be no node
        source.receive(relevance.sum_to_size(source.shape))


class Leaf(Row):
    """The input."""

    absorbs = False
    keeps = True


class Pass(Row):
    """An activation with f(0) = 0, or a scaled one (`call` is a `Scaling`): the source gets all relevance."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Pass on all relevance, but that of what is multiplied by 0: it does not depend on the source."""
        factor = getattr(node.call, "factor", None) if node.filled else None
        if isinstance(factor, Tensor):
            relevance = relevance.masked_fill(factor == 0, 0)
        super().pass_on(node, relevance)


class Relu(Pass):
    """Like other activations; inactive units have no relevance."""

    rectifies = True


class Opaque(Row):
    """An operation without a rule."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Raise the error of the refusal.

        Raises:
            UnexplainableError: always.
        """
        raise UnexplainableError(node.refusal or node.reason)


class Embedding(Row):
    """Tokens were looked up in a table: a token gets the relevance of all entries of its vector."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Sum over the vector."""
        (source,) = node.sources
        assert source is not None  # else there would be no node
        source.receive(relevance.sum(-1))
