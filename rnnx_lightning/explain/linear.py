"""A linear map as rules see it: sums of products of inputs and constant weights."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.pixels import Pixels

# "minus" is the magnitude of the negative part, so all parts except "all" are >= 0. The last two are the
# concatenations [plus, minus] and [minus, plus], for an input whose positive and negative parts are concatenated.
WeightPart = Literal["all", "plus", "minus", "square", "ones", "plus minus", "minus plus"]


@dataclass(frozen=True)
class Operation:
    """An operation that is linear in an input and in a weight.

    Attributes:
        apply: maps (input, weight) to the output, without bias. If the operation has no weight (a sum, an
            average), the second argument is unused, and all weights are >= 0.
        transpose: maps (factors of the output's shape, weight, shape of the input) to sum_j w_ij f_j, of the
            input's shape. If None, and `matrix` is None too, autograd computes it.
        matrix: for matrix products, maps a weight to the matrix that factors are multiplied with to transpose.
        beside: dimensions of the input and of the weight along which two inputs can be concatenated, so that the
            operation sums over both; None if that is not possible.
        features: the dimension of the input that it sums over; None: that of `beside`, or not known.
        weighted: of an operation without weight, the same with its own weights squared, or with 1 in their place;
            None: they are 1.
    """

    apply: Callable[[Tensor, Any], Tensor]
    transpose: Callable[[Tensor, Any, torch.Size], Tensor] | None = None
    beside: tuple[int, int] | None = None
    matrix: Callable[[Tensor], Tensor] | None = None
    features: int | None = None
    weighted: Callable[[Literal["square", "ones"]], "Operation"] | None = None

    @property
    def transposable(self) -> bool:
        """Whether its transpose is known; then the first dimension is the batch."""
        return self.transpose is not None or self.matrix is not None

    @property
    def sums_over(self) -> int | None:
        """The dimension of the input that it sums over; None: not known, or several."""
        return self.features if self.beside is None else self.beside[0]


IDENTITY = Operation(lambda a, _: a, lambda factors, _, shape: factors)


def held(tensor: Tensor) -> Tensor:
    """A tensor as a constant. It keeps its graph only if the relevance is to be differentiable."""
    return tensor.view_as(tensor) if torch.is_grad_enabled() else tensor.detach()


def leaf_of(value: Tensor) -> Tensor:
    """The same values as a tensor to differentiate with respect to; keeps the graph that they have."""
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()


class WeightParts:
    """Positive parts of weights and similar, computed once per explanation however often a layer is called."""

    def __init__(self) -> None:
        self._parts: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self._nonnegative: dict[tuple[object, ...], tuple[Tensor, bool]] = {}

    def __call__(self, weight: Tensor, part: WeightPart, beside: int = 0) -> Tensor:
        """A part of a weight. The weight itself is kept, so that its memory address is not reused."""
        if part == "all":
            return held(weight)
        key = (*self._key(weight), part)
        if key not in self._parts:
            self._parts[key] = (weight, self._make(weight, part, beside))
        return self._parts[key][1]

    def nonnegative(self, weight: Tensor) -> bool:
        """Whether no weight is negative."""
        key = self._key(weight)
        if key not in self._nonnegative:
            self._nonnegative[key] = (weight, weight.numel() == 0 or bool(weight.detach().amin() >= 0))
        return self._nonnegative[key][1]

    @staticmethod
    def _key(weight: Tensor) -> tuple[object, ...]:
        # By memory: `F.linear` makes a new view of its weight at each call. With a graph, each view has its own.
        return id(weight) if torch.is_grad_enabled() else weight.data_ptr(), weight.shape, weight.stride()

    def _make(self, weight: Tensor, part: WeightPart, beside: int) -> Tensor:
        plain = held(weight)
        if part == "plus":
            return plain.clamp(min=0)
        if part == "minus":
            return plain.clamp(max=0).neg()
        if part == "square":
            return plain.square()
        if part == "ones":
            return (plain != 0).to(plain.dtype)  # a weight of exactly 0 is not a connection
        sides = [self(weight, "plus"), self(weight, "minus")]
        both = torch.cat(sides if part == "plus minus" else sides[::-1], dim=beside)
        # The parts of a convolution with one input channel do not show the memory format of the weight.
        channels_last = weight.dim() == 4 and weight.stride(1) < weight.stride(2)
        return both.contiguous(memory_format=torch.channels_last) if channels_last else both


class Product:
    """Values times weights: summed in the forward direction, transposed in the backward direction.

    Attributes:
        value: of the input's shape, or two of them concatenated.
    """

    def __init__(
        self, operation: Operation, value: Tensor, weight: Tensor | None, fold: int | None, sign: float = 1.0
    ) -> None:
        self.value = value
        self.sign = sign
        self._operation = operation
        self._weight = weight
        self._fold = fold
        self._graph: tuple[Tensor, Tensor] | None = None

    def total(self) -> Tensor:
        """sum_i v_i w_ij."""
        if self._operation.transposable:
            return self._operation.apply(self.value, self._weight)
        if self._graph is None:
            with torch.enable_grad():
                leaf = leaf_of(self.value)
                self._graph = leaf, self._operation.apply(leaf, self._weight)
        return self._graph[1] if torch.is_grad_enabled() else self._graph[1].detach()

    def transposed(self, factors: Tensor, before: Tensor | None = None) -> Tensor:
        """sum_j w_ij f_j, of the shape of `value`, plus `before`, the result of another part of the operation."""
        if before is None:
            return self._transposed(factors)
        if self._operation.matrix is None or self._weight is None or torch.is_grad_enabled():
            return before + self._transposed(factors)
        before.view(-1, before.shape[-1]).addmm_(factors.flatten(0, -2), self._operation.matrix(self._weight))
        return before  # the result of a matrix product, which nothing else uses

    def _transposed(self, factors: Tensor) -> Tensor:
        if self._operation.matrix is not None and self._weight is not None:
            return factors @ self._operation.matrix(self._weight)
        if self._operation.transpose is not None:
            return self._operation.transpose(factors, self._weight, self.value.shape)
        self.total()
        assert self._graph is not None  # made by total()
        leaf, result = self._graph
        graph = torch.is_grad_enabled()
        return torch.autograd.grad(result, leaf, factors, retain_graph=True, create_graph=graph)[0]

    def folded(self, relevance: Tensor) -> Tensor:
        """The relevance of the input from that of `value`: two concatenated parts are added."""
        if self._fold is None:
            return relevance
        one, other = relevance.chunk(2, dim=self._fold)
        return one + other


@dataclass(slots=True)
class LinearMap:
    """One call of a linear operation.

    Attributes:
        value: the input.
        operation: the operation.
        weight: the constant factor, or None.
        bias: broadcastable to the output, or None.
        nonnegative: all entries of the input that are not pixels are known to be >= 0.
        pixels: which entries of the input are pixels, and their bounds.
        parts: cache of parts of weights.
        where: restricts the contributions to some entries of the input; None for all.
        present: False where an entry of the input is padding; None if there is no padding.
        output: sum_i a_i w_ij + b_j, if it is known.
        active_only: sums only need to be exact for positive outputs, because ReLU follows.
    """

    value: Tensor
    operation: Operation
    weight: Tensor | None
    bias: Tensor | None
    nonnegative: bool
    pixels: Pixels | None
    parts: WeightParts
    where: Tensor | None = None
    present: Tensor | None = None
    output: Tensor | None = None
    active_only: bool = False
    _sides: list[Tensor] | None = field(default=None, repr=False)

    def plain(self, channel: Channel) -> list[Product]:
        """Contributions a_i w_ij."""
        if channel is Channel.NET:
            return [self._product(self.value, "all")]
        if channel is Channel.POSITIVE:
            return self._signed("plus", "minus")
        if channel is Channel.NEGATIVE:
            return self._signed("minus", "plus")
        return self.of_weights("ones")

    def known_total(self, channel: Channel) -> Tensor | None:
        """The output, if it equals the total of this channel."""
        positive = channel is Channel.POSITIVE and self.nonnegative and self.pixels is None and self.weight is None
        return (
            self.output
            if self.bias is None and self.where is None and (positive or channel is Channel.NET)
            else None
        )

    def boxed(self, channel: Channel, low: float | Tensor, high: float | Tensor) -> list[Product]:
        """Contributions a_i w_ij - low w+_ij - high w-_ij, all >= 0; `NEGATIVE`: those of the negated map."""
        if channel is Channel.COUNT:
            return self.of_weights("ones")
        if self.pixels is not None:
            low, high = self.pixels.bounds(low, high)
        flip = channel is Channel.NEGATIVE
        if self.weight is None:
            return [self._product(high - self.value if flip else self.value - low, "plus")]
        one: WeightPart = "minus" if flip else "plus"
        other: WeightPart = "plus" if flip else "minus"
        if self.operation.beside is None or self.where is not None or torch.is_grad_enabled():
            return [self._product(self.value - low, one), self._product(high - self.value, other)]
        dim, weight_dim = self.operation.beside
        both, above, below = self._two_sides(self.value, dim)
        torch.sub(self.value, low, out=above)
        torch.neg(self.value, out=below).add_(high)
        weight = self.parts(self.weight, "minus plus" if flip else "plus minus", weight_dim)
        return [Product(self.operation, both, weight, fold=dim)]

    def boxed_total(self, low: float | Tensor, high: float | Tensor) -> Tensor | None:
        """sum_i a_i w_ij - low w+_ij - high w-_ij: the net input plus a constant that is equal for all examples.

        A positive net input has no cancellation here, because -low w+ and -high w- are >= 0 if low <= 0 <= high.
        """
        if not self.active_only or not self.operation.transposable or self.weight is None:
            return None
        if self.pixels is not None:
            low, high = self.pixels.bounds(low, high)
        if (
            self.output is None
            or self.bias is not None
            or self.where is not None
            or isinstance(low, Tensor)
            or isinstance(high, Tensor)
            or not low <= 0 <= high
        ):
            return None
        over = self.operation.sums_over
        alike = over is not None and over != -2  # all examples; not if they may be mixed, as in W @ x.T
        one = torch.ones_like(self.value[:1] if alike else self.value)
        constant = self.operation.apply(one * high, self._part("minus"))
        constant = constant - self.operation.apply(one * low, self._part("plus"))
        return (self.output + constant).clamp(min=0)

    def of_weights(self, part: Literal["square", "ones"]) -> list[Product]:
        """The squared weights, or 1 for each weight that is not 0, of all entries that are not padding."""
        ones = torch.ones_like(self.value)
        if self.present is not None:
            ones = ones * self.present
        if self.weight is None and self.operation.weighted is not None:
            return [Product(self.operation.weighted(part), self._chosen(ones), None, fold=None)]
        return [self._product(ones, part)]

    def only(self, where: Tensor, bias: bool) -> "LinearMap":
        """The same map with only the contributions of some entries."""
        return replace(self, where=where, bias=self.bias if bias else None, output=None, _sides=None)

    def only_padded(self, pixels: Tensor) -> bool:
        """Whether all entries that are no pixels are padding. A channel of only zeros is a start state instead."""
        if self.present is None or bool((self.present & ~pixels).any()):
            return False
        dim = self.operation.sums_over
        if dim is None:
            return True
        channel = dim % pixels.dim()
        return bool(pixels.movedim(channel, 0).reshape(pixels.shape[channel], -1).any(1).all())

    def _signed(self, of_positive: WeightPart, of_negative: WeightPart) -> list[Product]:
        """Products >= 0: positive inputs times one part of the weights, negative inputs times the other."""
        value = self.value
        if self.nonnegative and self.pixels is None:
            if self.weight is None or self.parts.nonnegative(self.weight):
                return [self._product(value, "all")] if of_positive == "plus" else []
            return [self._product(value, of_positive)]
        if self.weight is None:  # all weights are positive
            side = value.clamp(min=0) if of_positive == "plus" else value.clamp(max=0).neg()
            return [self._product(side, "all")]
        sides = self._by_sign(value)
        if len(sides) == 2 or self.operation.beside is None:
            return [self._product(sides[0], of_positive), self._product(sides[1], of_negative)]
        # A signed input becomes a nonnegative one of twice the width: one product instead of two.
        dim, weight_dim = self.operation.beside
        part: WeightPart = "plus minus" if of_positive == "plus" else "minus plus"
        weight = self.parts(self.weight, part, weight_dim)
        return [Product(self.operation, sides[0], weight, fold=dim)]

    def _by_sign(self, value: Tensor) -> list[Tensor]:
        """Magnitudes of positive and negative entries: two tensors, or one that concatenates them."""
        if self._sides is None:
            value = self._chosen(value)
            if self.operation.beside is None or torch.is_grad_enabled():
                self._sides = [value.clamp(min=0), value.clamp(max=0).neg()]
            else:
                both, above, below = self._two_sides(value, self.operation.beside[0])
                torch.clamp(value, min=0, out=above)
                torch.clamp(value, max=0, out=below).neg_()
                self._sides = [both]
        return self._sides

    @staticmethod
    def _two_sides(value: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Memory for two concatenated tensors like `value`: the whole, and each half."""
        shape = list(value.shape)
        shape[dim] *= 2
        both = value.new_empty(shape)
        above, below = both.chunk(2, dim=dim)
        return both, above, below

    def _product(self, value: Tensor, part: WeightPart) -> Product:
        return Product(self.operation, self._chosen(value), self._part(part), fold=None)

    def _chosen(self, value: Tensor) -> Tensor:
        return value if self.where is None else torch.where(self.where, value, 0.0)

    def _part(self, part: WeightPart) -> Tensor | None:
        return None if self.weight is None else self.parts(self.weight, part)


def relevance_of_input(products: list[tuple[Product, Tensor]]) -> Tensor | None:
    """The relevance of an input: its products, each transposed with the factor of its channel."""
    parts: dict[int, tuple[Product, Tensor, list[Tensor]]] = {}  # by the id of the value that is multiplied
    for product, factor in products:
        factor = factor if product.sign == 1 else product.sign * factor
        key = id(product.value)
        if key in parts:
            _, before, factors = parts[key]
            parts[key] = product, product.transposed(factor, before), [*factors, factor]
        else:
            parts[key] = product, product.transposed(factor), [factor]
    relevance = None
    for product, part, factors in parts.values():
        own = product.folded(_times(part, product.value, factors))
        relevance = own if relevance is None else relevance + own
    return relevance


def _times(part: Tensor, value: Tensor, borrowed: list[Tensor]) -> Tensor:
    """Part * value, in place if `part` shares its memory with nothing else."""
    if torch.is_grad_enabled():
        return part * value
    memory = part.untyped_storage()
    own = all(factor.untyped_storage().data_ptr() != memory.data_ptr() for factor in borrowed)
    whole = memory.nbytes() == part.numel() * part.element_size()  # not expanded, not a view of a larger tensor
    return part.mul_(value) if own and whole and part.dtype == value.dtype else part * value
