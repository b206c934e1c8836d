"""What a unit is made of: terms, each the contributions of an input or sums with a graph of their own.

Buffers of this file's own are changed in place: for large feature maps new memory costs more than arithmetic.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rnnx_lightning.explain.linear import Channel, Product

Sum = Sequence[Tensor | None]  # its terms; None for one without contributions
Products = Sequence[Sequence[Product]]  # one sequence a channel


def added(terms: Sum) -> Tensor | None:
    """The sum of the terms that there are."""
    present = [term for term in terms if term is not None]
    return sum(present[1:], start=present[0]) if present else None


class Term(Protocol):
    """One term of a sum of linear maps."""

    @property
    def by_value(self) -> bool:
        """Its value is the first channel's sum less the second's, and the first one's may be left out."""
        ...

    @property
    def totals(self) -> Sum:
        """The sums of contributions, one a channel; None for a channel without any."""
        ...

    @property
    def inputs(self) -> Sum:
        """What it is made of in the graph."""
        ...

    @property
    def products(self) -> Products | None:
        """What the contributions of the one input are, one list a channel; None where the sums are the inputs."""
        ...

    def separate(self) -> "Sums":
        """The same with a graph of the sums' own, so that they can be scaled and moved."""
        ...


class Sums(NamedTuple):
    """A term given by sums that are part of the graph: their gradients are the factors."""

    totals: Sum
    by_value: bool
    products: None = None

    @property
    def inputs(self) -> Sum:
        """The sums."""
        return self.totals

    def separate(self) -> "Sums":
        """Itself."""
        return self


class Contribution:
    """A term given by its input, whose gradient is its relevance.

    Args:
        source: the input.
        totals: the sums of what it contributes, without a graph.
        by_value: see `Term`.
        products: see `Term`.
    """

    def __init__(self, source: Tensor, totals: Sum, by_value: bool, products: Products) -> None:
        self.inputs = (source,)
        self.totals = totals
        self.by_value = by_value
        self.products = products
        self._separate: Sums | None = None

    def separate(self) -> Sums:
        """The sums with their graph, the same ones each time."""
        if self._separate is None:
            totals = Separate.apply(self.products, *self.inputs, *self.totals)
            self._separate = Sums(totals, self.by_value)
        return self._separate


def contribute(source: Tensor | None, channels: Sequence[Channel | None]) -> Term:
    """What `source` contributes to a unit; None for a constant, which gets no relevance."""
    totals = tuple(None if channel is None else channel.total for channel in channels)
    by_value = all(channel.by_value for channel in channels if channel is not None)
    if source is None:
        return Sums(totals, by_value)
    products = [[] if channel is None else channel.products for channel in channels]
    return Contribution(source, totals, by_value, products)


class Separate(torch.autograd.Function):
    """An input's contributions as sums with a graph; backward, from their factors to the input's relevance."""

    @staticmethod
    def forward(ctx: Any, products: Products, source: Tensor, *totals: Tensor | None) -> Sum:
        """The sums."""
        ctx.products = products  # not the sums: nobody may need them any more
        ctx.set_materialize_grads(False)
        return tuple(None if total is None else total.view_as(total) for total in totals)

    @staticmethod
    def backward(ctx: Any, *factors: Tensor | None) -> tuple[Tensor | None, ...]:
        """The relevance of the source."""
        return None, relevance_of_input(ctx.products, factors), *(None for _ in factors)


class Terms:
    """What a unit is made of, with its graph, computed when it is first asked for.

    Args:
        compute: gives the terms; it is told whether they need be right only for units whose value is positive.
    """

    def __init__(self, compute: Callable[[bool], Sequence[Term]]) -> None:
        self._compute = compute
        self._terms: dict[bool, tuple[Term, ...]] = {}

    def __call__(self, active_only: bool = False) -> tuple[Term, ...]:
        """The terms; exact ones serve everybody, of others all or none are by value."""
        if False in self._terms:
            return self._terms[False]
        if active_only not in self._terms:
            terms = tuple(self._compute(active_only))
            if active_only and len({term.by_value for term in terms}) > 1:
                return self(active_only=False)  # what the value gives for some is missing for the others
            self._terms[active_only] = terms
        return self._terms[active_only]

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Terms":
        """All sums after a function that is linear in each."""
        return Terms(
            lambda active_only: [
                Sums(tuple(None if part is None else function(part) for part in term.totals), term.by_value)
                for term in (term.separate() for term in self(active_only))
            ]
        )

    def together(self) -> "Terms":
        """The same as one term."""

        def compute(active_only: bool) -> list[Term]:
            terms = [term.separate() for term in self(active_only)]
            totals = tuple(added(parts) for parts in zip(*(term.totals for term in terms), strict=True))
            return [Sums(totals, all(term.by_value for term in terms))]

        return Terms(compute)

    @property
    def asked(self) -> list[Tensor]:
        """All sums that anybody has asked for."""
        terms = (term for terms in self._terms.values() for term in terms)
        return [part for term in terms for part in term.separate().totals if part is not None]


def relevance_of_input(channels: Products, factors: Sum) -> Tensor | None:
    """The relevance of an input: the products of each channel, transposed, with the channel's factor."""
    parts: dict[int, tuple[Product, Tensor]] = {}  # by the value that they are multiplied with
    for products, factor in zip(channels, factors, strict=True):
        if factor is None:
            continue
        for product in products:
            key = id(product.value)
            before = parts[key][1] if key in parts else None
            parts[key] = product, product.transposed(factor, before)
    relevance = None
    for product, part in parts.values():
        own = product.folded(_times(part, product.value, factors))
        relevance = own if relevance is None else relevance + own
    return relevance


def _times(part: Tensor, value: Tensor, borrowed: Sum) -> Tensor:
    """Part * value, in place if the memory of `part` is its own."""
    memory = part.untyped_storage()
    own = all(factor is None or factor.untyped_storage().data_ptr() != memory.data_ptr() for factor in borrowed)
    whole = memory.nbytes() == part.numel() * part.element_size()  # not expanded, no view of a larger one
    return part.mul_(value) if own and whole and part.dtype == value.dtype else part * value
