"""Tokens for gradient methods: the vectors that are looked up at tokens are explained in place of the tokens.

Tokens have no gradient. So the network runs once to find its lookups. Then the method explains the vectors, which
replace what later runs look up. The relevance of a token is the sum over all entries of its vectors.
"""

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rnnx_lightning.explain.inputs import Bound, Inputs, batch_size, filled, network_of, tensors_of
from rnnx_lightning.explain.isolation import kept_state
from rnnx_lightning.explain.places import Places, followed, number, places_of, tensors_in
from rnnx_lightning.explain.refusals import UnexplainableError

EMBEDDINGS = (F.embedding, torch.embedding, torch.ops.aten.embedding.default)
CHOICES = (Tensor.__getitem__, torch.index_select, Tensor.index_select)
OTHER_CHOICES = (
    *CHOICES, torch.gather, Tensor.gather, torch.take, Tensor.take, torch.take_along_dim, Tensor.take_along_dim
)  # fmt: skip
WRITES = (torch.scatter, Tensor.scatter, Tensor.scatter_)
CASTS = (Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.to, Tensor.type, Tensor.type_as)
BAG = signature(F.embedding_bag)
ONE_HOT = "_rnnx_one_hot"  # the attribute of a one-hot tensor that holds its tokens


class Lookup(NamedTuple):
    """Vectors that were looked up at tokens.

    Attributes:
        vectors: (..., D) for tokens (...); (...) from a table of numbers.
        positions: (...) in all tokens of the input, one after another; -1 for constants.
        start: the same vectors for the baseline token.
    """

    vectors: Tensor
    positions: Tensor
    start: Tensor


class Lookups(TorchFunctionMode):
    """A context that finds the lookups of tokens, or replaces what they return.

    Args:
        tokens: the tokens of the input.
        vectors: what the lookups return, in order; None: they return what they find.
        baseline: a token; None: its vectors are zero.
    """

    def __init__(
        self, tokens: Sequence[Tensor], vectors: Sequence[Tensor] | None = None, baseline: int | None = None
    ) -> None:
        super().__init__()
        self.found: list[Lookup] = []
        self._vectors: Iterator[Tensor] | None = None if vectors is None else iter(vectors)
        self._baseline = baseline
        number(tokens)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, and follow tokens through it."""
        kwargs = kwargs or {}
        if func in CASTS and hasattr(args[0], ONE_HOT):
            return self._cast(func, args, kwargs)
        tokens = next((part for part in tensors_in((args, kwargs)) if places_of(part) is not None), None)
        if tokens is None:
            return func(*args, **kwargs)
        if func is F.embedding_bag and (given := BAG.bind(*args, **kwargs).arguments)["input"] is tokens:
            return self._bag(given)
        if func in EMBEDDINGS or (func in CHOICES and _chooses([*args, *kwargs.values()], tokens)):
            return self._looked_up(tokens, lambda part: _with(func, args, kwargs, tokens, part))
        if func in WRITES and (one_by_one := _one_by_one(args, kwargs, tokens)) is not None:
            base, dim, _, written = args
            return self._looked_up(one_by_one, lambda part: torch.scatter(base, dim, part[..., None], written))
        if func in OTHER_CHOICES and torch.is_grad_enabled() and _is_constant(args[0]):
            raise UnexplainableError(
                f"Tokens are looked up by {func.__name__!r}, which gradient methods do not know: write it as "
                "table[tokens] or F.embedding(tokens, table), or use LRP."
            )
        value = followed(func, args, kwargs)
        if func is F.one_hot:
            setattr(value, ONE_HOT, tokens)
        return value

    def _looked_up(self, tokens: Tensor, lookup: Callable[[Tensor], Tensor]) -> Tensor:
        """The vectors of tokens, or what replaces them."""
        places = places_of(tokens)
        if not isinstance(places, Places):
            raise UnexplainableError(
                f"Tokens are looked up after {places!r}, where gradient methods cannot follow them: use LRP."
            )
        if self._vectors is None:
            value, positions = lookup(tokens).detach(), places.positions
            if self._baseline is None:
                start = torch.zeros_like(value)
            else:
                start = lookup(tokens.masked_fill(positions >= 0, self._baseline)).detach()
            self.found.append(Lookup(value, positions, start))
            # It requires a gradient, so that `_chooses` can tell what depends on it from a constant table. It is a
            # clone, because a leaf of the graph must not be overwritten.
            return value.detach().requires_grad_().clone()
        given = next(self._vectors, None)
        if given is None:
            raise UnexplainableError("The network does not look tokens up in the same way each time that it runs.")
        return given

    def _bag(self, given: dict[str, Any]) -> Tensor:
        """Bags of vectors, from a table with a row for each token."""
        tokens, weight = given["input"], given["weight"]
        norm = {name: given.pop(name) for name in ("max_norm", "norm_type") if name in given}
        vectors = self._looked_up(tokens, lambda part: F.embedding(part, weight, **norm))
        padding = given.pop("padding_idx", None)
        given["weight"] = F.pad(vectors.flatten(0, -2), (0, 0, 0, 1))
        last = given["padding_idx"] = tokens.numel()
        rows = torch.arange(last, device=tokens.device).view(tokens.shape)
        given["input"] = rows if padding is None else rows.masked_fill(tokens == padding, last)
        return F.embedding_bag(**given)

    def _cast(self, func: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        """One-hot vectors, as numbers with a gradient."""
        one_hot, *others = args
        value = func(*args, **kwargs)
        tokens = getattr(one_hot, ONE_HOT)
        if not value.is_floating_point():
            setattr(value, ONE_HOT, tokens)
            return value
        return self._looked_up(tokens, lambda part: func(F.one_hot(part, one_hot.shape[-1]), *others, **kwargs))


class WithVectors(Bound):
    """A network of tokens as one of vectors.

    It takes a tuple: a column of zeros (B, 1), which tells the number of examples; the tensors of the input that
    are not tokens; and the vectors of each lookup.

    Args:
        model: the network.
        x: its input.
        baseline: a token; None: its vectors are zero.

    Raises:
        UnexplainableError: the network looks up nothing at tokens, or at tokens that cannot be followed.
    """

    def __init__(self, model: nn.Module, x: Inputs, baseline: int | None = None) -> None:
        super().__init__(network_of(model), {})
        self.__dict__["whole"] = model
        self.x = x
        self.others = [tensor for tensor in tensors_of(x) if tensor.is_floating_point()]
        with kept_state(network_of(model)), torch.enable_grad():
            # They require gradients, so that what depends on them is known to be no constant table.
            others = [other.detach().requires_grad_().clone() for other in self.others]
            self.lookups = self._run(others, None, baseline)[1]
        if not self.lookups and not self.others:
            raise UnexplainableError(
                "Whole numbers have no gradient, and no vectors are looked up at them, or TorchScript hides that. "
                "If they are tokens, use LRP. If they are numbers or pixels, give them as floating-point numbers: "
                "x.float()."
            )

    def _run(
        self, others: Sequence[Tensor], vectors: Sequence[Tensor] | None, baseline: int | None = None
    ) -> tuple[Any, list[Lookup]]:
        """The network's output, and the lookups found."""
        remaining = iter(others)
        parts = [next(remaining) if part.is_floating_point() else part.clone() for part in tensors_of(self.x)]
        lookups = Lookups([part for part in parts if not part.is_floating_point()], vectors, baseline)
        with lookups:
            return self.__dict__["whole"](filled(self.x, parts)), lookups.found

    def forward(self, x: Inputs) -> Any:
        """The network's output."""
        _, *parts = x
        return self._run(parts[: len(self.others)], parts[len(self.others) :])[0]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the network is called with, in place of its input."""
        vectors = [lookup.vectors for lookup in self.lookups]
        (like, *_) = (*self.others, *vectors)
        return like.new_zeros(batch_size(self.x), 1), *self.others, *vectors

    def of_tokens(self, relevance: Sequence[Tensor]) -> Inputs:
        """Relevance in the structure of the network's input, from that of `inputs`."""
        one, *parts = relevance
        others, vectors = iter(parts[: len(self.others)]), parts[len(self.others) :]
        tensors = tensors_of(self.x)
        sizes = [0 if tensor.is_floating_point() else tensor.numel() for tensor in tensors]
        total = one.new_zeros(sum(sizes))
        for (_, positions, _), part in zip(self.lookups, vectors, strict=True):
            own = part.flatten(positions.dim()).sum(-1) if part.dim() > positions.dim() else part
            total = total.index_add(0, positions[positions >= 0], own[positions >= 0].to(total.dtype))
        of_tensors = zip(tensors, total.split(sizes), strict=True)
        return filled(
            self.x, [next(others) if t.is_floating_point() else own.view(t.shape) for t, own in of_tensors]
        )


def _is_constant(table: Any) -> bool:
    """Whether it is a table of numbers, or a parameter that was moved: nothing that depends on the input."""
    if not (isinstance(table, Tensor) and table.is_floating_point()):
        return False
    if (node := table.grad_fn) is None:
        return True
    while len(node.next_functions) == 1 and (before := node.next_functions[0][0]) is not None:
        node = before
    return isinstance(getattr(node, "variable", None), nn.Parameter)


def _one_by_one(args: Sequence[Any], kwargs: Any, tokens: Tensor) -> Tensor | None:
    """The tokens (...) if numbers are written at each, which makes one-hot vectors (..., D); else None."""
    if kwargs or len(args) != 4 or args[2] is not tokens or not _is_constant(args[0]):
        return None
    dim = args[1] % tokens.dim()
    constant = not isinstance(args[3], Tensor) or args[3].dim() == 0
    if (
        not constant
        or dim != tokens.dim() - 1
        or tokens.shape[dim] != 1
        or args[0].shape[:dim] != tokens.shape[:dim]
    ):
        return None
    alone: Tensor = followed(Tensor.squeeze, (tokens, -1), {})
    return alone


def _chooses(args: list[Any], tokens: Tensor) -> bool:
    """Whether rows of a constant table are chosen by tokens: table[tokens] or index_select(table, 0, tokens)."""
    table, *where = args
    if not _is_constant(table) or not isinstance(places_of(tokens), Places):
        return False
    return where[-1] is tokens and (len(where) == 1 or where[0] == 0)


def _with(func: Callable[..., Tensor], args: Any, kwargs: Any, tokens: Tensor, others: Tensor) -> Tensor:
    """A function of other tokens."""

    def own(part: Any) -> Any:
        return others if part is tokens else part

    return func(*map(own, args), **{name: own(part) for name, part in kwargs.items()})
