"""Rows whose relevance is computed by a derivative."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rnnx_lightning.explain.linear import leaf_of
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows.row import Row
from rnnx_lightning.explain.sharing import least


class Vjp(Row):
    """Relevance goes back like the gradient, as in max pooling; `call` is (function, value)."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Multiply with the transposed derivative."""
        (source,) = node.sources
        assert source is not None  # else there would be no node
        function, value = node.call
        source.receive(transposed(function, value, relevance))


class SoftMaximum(Vjp):
    """A logsumexp: of zeros, it is the logarithm of their number."""

    fills = True


class Half(Row):
    """A product of two signals, each of which gets half; `call` is (function, values)."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """Treat it as a linear map of each factor, by the epsilon rule (LRP-half) [Achtibat et al., 2024]."""
        function, values = node.call
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            leaves = [leaf_of(value) for value in values]
            result = function(*leaves)
            whole = result if create else result.detach()
            gone = whole.abs() <= least(whole.dtype)
            factor = relevance / whole.masked_fill(gone, torch.inf)
            gradients = torch.autograd.grad(result, leaves, factor, create_graph=create)
        lost = relevance.masked_fill(~gone, 0)  # of a product that is 0, spread as a bias's share is
        even = self._evenly(function, values, lost) if bool(lost.any()) else (None, None)
        for source, value, gradient, part in zip(node.sources, values, gradients, even, strict=True):
            assert source is not None  # both are signals
            share = gradient * value if part is None else gradient * value + part
            source.receive(0.5 * share)

    @staticmethod
    def _evenly(function: Callable[..., Tensor], values: Sequence[Tensor], part: Tensor) -> tuple[Tensor, ...]:
        """To all factors of a product alike."""
        with torch.enable_grad():
            leaves = [torch.ones_like(value, requires_grad=True) for value in values]
            result = function(*leaves)
            return torch.autograd.grad(result, leaves, part / result.detach(), create_graph=part.requires_grad)


class Softmax(Row):
    """A softmax as a signal; `call` is (argument, value, dimension)."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """R_i = x_i (R_i - s_i sum_j R_j), proposition 3.1 of [Achtibat et al., 2024]; 0 for masked entries."""
        (source,) = node.sources
        assert source is not None  # else there would be no node
        x, value, dim = node.call
        share = relevance - value * relevance.sum(dim, keepdim=True)
        source.receive(x.masked_fill(value == 0, 0.0) * share)


def transposed(function: Callable[[Tensor], Tensor], value: Tensor, part: Tensor) -> Tensor:
    """The transposed derivative of a function at `value`, times `part`."""
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = leaf_of(value)
        return torch.autograd.grad(function(leaf), leaf, part, create_graph=create)[0]
