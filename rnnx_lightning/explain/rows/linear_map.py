"""Linear maps and constants."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.linear import LinearMap, Product, relevance_of_input
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows.row import Part, Row
from rnnx_lightning.explain.rules import Rule
from rnnx_lightning.explain.totals import Total


class Map(NamedTuple):
    """One call of a linear operation, and the rule of its contributions."""

    rule: Rule
    layer: LinearMap


class MapCall:
    """The maps of one linear operation: one, or one for pixels and one for other features."""

    def __init__(self, maps: list[Map]) -> None:
        self.maps = maps
        self.due: list[tuple[Product, Tensor]] = []  # products to transpose together, with their factors
        self._products: dict[tuple[int, Channel], list[Product]] = {}

    def products(self, number: int, channel: Channel) -> list[Product]:
        """The contributions of one map, computed once."""
        key = (number, channel)
        if key not in self._products:
            rule, layer = self.maps[number]
            self._products[key] = rule.contributions(layer, channel)
        return self._products[key]


class Linear(Row):
    """A linear map of one source; `call` is a `MapCall`."""

    absorbs = False

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """None: its totals are computed from its input."""
        return ()

    def total(self, node: Node, channel: Channel) -> Total | None:
        """A sum of products; the bias is the constant."""
        call: MapCall = node.call
        if channel is Channel.CONSTANT:
            biases = [layer.bias for _, layer in call.maps if layer.bias is not None]
            return Total(biases[0].to(node.dtype)) if biases else None
        total: Tensor | None = None
        for number, (rule, layer) in enumerate(call.maps):
            if self._left_out(node, rule, channel):
                continue
            layer.active_only = not node.exact
            part = layer.known_total(channel) if rule.plain else None
            part = rule.total(layer, channel) if part is None else part
            for product in call.products(number, channel) if part is None else ():
                own = product.sign * product.total() if product.sign != 1 else product.total()
                part = own if part is None else part + own
            if part is not None:
                total = part if total is None else total + part
        return None if total is None else Total(total)

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """Remember what to transpose."""
        call: MapCall = node.call
        for number, (rule, _) in enumerate(call.maps):
            if not self._left_out(node, rule, channel):
                call.due += [(product, factor) for product in call.products(number, channel)]

    def finish(self, node: Node) -> None:
        """Transpose the products; this needs much memory, so what else the sum holds is freed before."""
        (source,), due = node.sources, node.call.due
        node.free()
        relevance = relevance_of_input(due)
        if source is not None and relevance is not None:
            source.receive(relevance)

    @staticmethod
    def _left_out(node: Node, rule: Rule, channel: Channel) -> bool:
        """Whether a channel is empty, because the rule only gives positive contributions to a sum with others."""
        assert node.rule is not None  # it is a sum
        return channel is Channel.NEGATIVE and rule.adapts and not node.rule.adapts


def forget_value(node: Node) -> None:
    """Free the value of a layer's output; if something other than a sum reads it, too, it is computed again."""
    if isinstance(node.row, Linear):
        node.value, node.by_value = None, False
        for _, layer in node.call.maps:
            layer.output = None


class Constant(Row):
    """A constant term; `call` is its value."""

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """None."""
        return ()

    def total(self, node: Node, channel: Channel) -> Total | None:
        """The value."""
        return Total(node.call) if channel is Channel.CONSTANT else None

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """The relevance of a constant is lost."""
