"""The mode that watches a network run and builds, beside its values, the graph that relevance flows through.

Every torch operation that touches something made of the input is seen, functional or inside a layer, each
time it is performed. Its value is left alone. In the graph that is built, the gradient of a tensor *is* its
relevance: one ordinary `torch.autograd.grad` from the explained logit gives the heatmap.

An operation falls into one of the kinds of `operations`; what falls into none is refused by name.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.linear import LinearMap, WeightParts
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.pixels import Pixels
from rnnx_lightning.explain.rules import Rule
from rnnx_lightning.explain.sharing import Pass, close
from rnnx_lightning.explain.terms import Term, Terms, contribute

T = TypeVar("T")
NOTE = "_rnnx_traced"  # an attribute of tensors


class UnexplainableError(Exception):
    """The network does something that has no rule; the message names it, its place, and what to do."""


class Once(Generic[T]):
    """A value that is computed when it is first asked for."""

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute: Callable[[], T] | None = compute
        self._value: T

    def __call__(self) -> T:
        """The value."""
        if self._compute is not None:
            self._value = self._compute()
            self._compute = None
        return self._value

    @property
    def asked(self) -> bool:
        """Has anybody asked?"""
        return self._compute is None


@dataclass(slots=True)
class PendingSum:
    """A sum of linear maps whose last term may not have come yet: W x, and then + U h.

    Attributes:
        rule: by it the unit's relevance is shared among the channels.
        terms: the sums of contributions.
    """

    rule: Rule
    terms: Terms


@dataclass(slots=True)
class Traced:
    """What is known of a tensor that is made of the input.

    Attributes:
        nonnegative: all entries that are no pixels are known to be >= 0.
        pixels: which entries are pixels.
        gate: it scales signals (a sigmoid's output, or 1 - it); as a factor it gets no relevance.
        pending: set where the tensor is a sum of linear maps.
        graph: the tensor with its graph, where it is not the tensor itself.
        aliased: shares its memory with another traced tensor.
        tracer: who knows it; what another one has noted on a tensor that outlives its forward pass is void.
    """

    nonnegative: bool = False
    pixels: Pixels | None = None
    gate: bool = False
    pending: PendingSum | None = None
    graph: Once[Tensor] | None = None
    aliased: bool = False
    tracer: object = None


NOTHING = Traced()  # noted by nobody


@dataclass(frozen=True)
class KnownOperations:
    """What the tracer can see.

    Attributes:
        kinds: torch function to `(tracer, func, *args, **kwargs)`, which does what the function does.
        harmless: functions whose results are not made of the input's values.
        advice: name of a function that is refused to what to do instead.
    """

    kinds: Mapping[Any, Callable[..., Any]]
    harmless: Collection[Any]
    advice: Mapping[str, str]


class RelevanceTracer(TorchFunctionMode):
    """Watches one forward pass.

    Args:
        anchor: the input, a leaf that requires grad; all its entries are pixels.
        composite: which operation gets which rule.
        path: where in the network we are.
        operations: what can be seen.
    """

    def __init__(
        self, anchor: Tensor, composite: Composite, path: ModulePath, operations: KnownOperations
    ) -> None:
        super().__init__()
        self._operations = operations
        self.parts = WeightParts()
        self.composite = composite
        self.path = path
        # The relevance of inner layers is read off the sums, which must be there then, and exact for all units.
        self._apart = bool(path.outputs)
        self._shortcuts = composite.zero_gets_nothing and not self._apart
        self._note(anchor, Traced(pixels=Pixels()))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Handle one operation according to its kind."""
        kwargs = kwargs or {}
        unknown: list[Tensor] = []
        known = self._find_unknown(args, unknown)
        if kwargs:
            known |= self._find_unknown(kwargs.values(), unknown)
        if not known:
            return self._run_constant(func, unknown, args, kwargs)
        if func in self._operations.harmless:
            with torch.no_grad():
                return func(*args, **kwargs)
        if unknown:
            self._refuse_unseen(unknown)
        if not torch.is_grad_enabled():
            self.refuse(
                func, "It runs inside a custom autograd function or torch.no_grad: write it outside of them."
            )
        kind = self._operations.kinds.get(func)
        if kind is None:
            self.refuse(func)
        return kind(self, func, *args, **kwargs)

    def _run_constant(self, func: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Something that does not depend on the input: as it is, but without gradients for parameters."""
        if not tensors:
            return func(*args, **kwargs)  # also what sets the grad mode comes this way
        if func.__name__ != "__get__":
            self._refuse_unseen(tensors)
        with torch.no_grad():
            return func(*args, **kwargs)

    # -- what is known of tensors ----------------------------------------------------------------------------

    def info(self, tensor: Any) -> Traced | None:
        """What is known of a tensor; None for constants and whatever is no tensor."""
        info: Traced = getattr(tensor, NOTE, NOTHING)
        return info if info.tracer is self else None

    def _note(self, tensor: Tensor, info: Traced) -> None:
        info.tracer = self
        setattr(tensor, NOTE, info)

    def _find_unknown(self, arguments: Iterable[Any], unknown: list[Tensor]) -> bool:
        """Append all tensors among the arguments that nothing is known of; is something known of any?"""
        known = False
        for argument in arguments:
            if isinstance(argument, Tensor):
                if self.info(argument) is None:
                    unknown.append(argument)
                else:
                    known = True
            elif isinstance(argument, tuple | list):
                known |= self._find_unknown(argument, unknown)
            elif isinstance(argument, dict):
                known |= self._find_unknown(argument.values(), unknown)
        return known

    def _traced(self, tensor: Tensor) -> Traced:
        info = self.info(tensor)
        assert info is not None  # callers have asked
        return info

    def known(self, tensor: Any, func: Any, advice: str) -> Traced:
        """What is known of a tensor that must be made of the input; else `func` is refused with `advice`."""
        info = self.info(tensor)
        if info is None:
            self.refuse(func, advice)
        return info

    def close(self, tensor: Tensor) -> Tensor:
        """The tensor with its graph; a pending sum is complete now."""
        info = self._traced(tensor)
        if info.graph is not None:
            return info.graph()
        if info.pending is not None:
            pending = info.pending
            value = tensor.detach()
            info.graph = Once(
                lambda: close(pending.rule.sharing, value, pending.terms(), net=value, apart=self._apart)
            )
            return info.graph()
        return tensor

    def passed(self, source: Tensor, value: Tensor, active_only: bool = False) -> Tensor:
        """`value` in the graph, all its relevance going to `source` (whose pending sum is complete now).

        With `active_only`, `value` is ReLU of `source`.
        """
        info = self._traced(source)
        if info.pending is not None and value.shape == source.shape:
            active_only = active_only and self._shortcuts
            pending, net = info.pending, value if active_only else source.detach()
            return close(
                pending.rule.sharing, value, pending.terms(active_only), net, active_only, apart=self._apart
            )
        return Pass.apply(self.close(source), value)

    def remember(self, tensor: Tensor, info: Traced) -> Tensor:
        """Note what is known of a new tensor.

        One whose graph is made later requires a gradient now, so that no operation can use it unseen.
        """
        if info.pending is not None or info.graph is not None:
            tensor = tensor.detach().requires_grad_()
        self._note(tensor, info)
        return tensor

    def remember_inplace(self, tensor: Tensor, result: Tensor) -> Tensor:
        """Let `tensor` be what `result` is, as an in-place operation does."""
        info = self._traced(tensor)
        if info.pending is None or info.aliased or tensor.shape != result.shape:
            raise UnexplainableError(
                f"An in-place operation{self.path} overwrites a value that others may still need. "
                "Use its ordinary form (for example nn.ReLU(inplace=False))."
            )
        tensor.data = result.detach()  # other memory: what was made of the old value keeps it
        new = self._traced(result)
        if new.pending is None and new.graph is None:
            new = Traced(new.nonnegative, new.pixels, new.gate, graph=Once(lambda: result))
        self._note(tensor, new)
        return tensor

    # -- linear maps -----------------------------------------------------------------------------------------

    def channels_of(self, source: Tensor, layer: LinearMap) -> PendingSum:
        """The sums of contributions of `source` to one linear map of it, by the rule that the map gets."""
        rule = self.composite.rule(self.path, reads_pixels=layer.pixels is not None)
        mask = layer.pixels.mask if layer.pixels is not None else None
        other = rule if mask is None else self.composite.rule(self.path, reads_pixels=False)
        if mask is None or other == rule:

            def term(active_only: bool) -> list[Term]:
                layer.active_only = active_only
                return [contribute(source, rule.channels(layer))]

            return PendingSum(rule, Terms(term))
        pixels, rest = layer.on_pixels(mask), layer.on_features(~mask)

        def terms(active_only: bool) -> list[Term]:
            return [contribute(source, r.channels(part)) for r, part in ((rule, pixels), (other, rest))]

        return PendingSum(self.common_rule(other, rule), Terms(terms))

    def common_rule(self, one: Rule, other: Rule) -> Rule:
        """The rule of a sum of terms that have rules: they need one denominator.

        Raises:
            UnexplainableError: they share relevance in different ways.
        """
        if one is other:
            return one
        if one.sharing != other.sharing:
            raise UnexplainableError(
                f"A sum{self.path} adds terms whose rules share relevance in different ways ({one.sharing} and "
                f"{other.sharing}). Give both terms the same rule."
            )
        if one == other or one.sharing.signed or other.sharing.signed:
            return other if other.sharing.signed else one
        here = self.composite.rule(self.path, reads_pixels=False)
        return here if here.sharing == one.sharing else one

    # -- relevance at inner layers ---------------------------------------------------------------------------

    def parts_of(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of the graph whose gradients tell the relevance of `tensor`; none if it gets none."""
        info = self.info(tensor)
        if info is None:
            return []
        if info.pending is not None:
            return [part for part in info.pending.terms.asked if part.requires_grad]
        if info.graph is not None:
            return [info.graph()] if info.graph.asked else []
        return [tensor]

    def relevance_at(self, tensor: Tensor, gradients: list[Tensor | None]) -> Tensor:
        """The relevance of `tensor` from the gradients of its parts: factors for a sum, relevance elsewhere."""
        info, total = self.info(tensor), torch.zeros_like(tensor)
        pending = info is not None and info.pending is not None
        for part, gradient in zip(self.parts_of(tensor), gradients, strict=True):
            if gradient is not None:
                total = total + (part * gradient if pending else gradient)
        return total.detach()

    # -- refusals --------------------------------------------------------------------------------------------

    def refuse(self, func: Any, advice: str | None = None) -> NoReturn:
        """Raise for an operation that has no rule."""
        name = func.__name__.strip("_")
        anyway = "Write it with operations that have one: see docs/explaining.md."
        advice = advice or self._operations.advice.get(name, anyway)
        raise UnexplainableError(
            f"No relevance rule for the operation {name!r} ({resolve_name(func) or name}){self.path}. {advice}"
        )

    def _refuse_unseen(self, unknown: list[Tensor]) -> None:
        """Raise for a tensor that depends on the input by a way that was not seen."""
        for tensor in unknown:
            if tensor.grad_fn is not None:
                raise UnexplainableError(
                    f"A tensor{self.path} was made by {tensor.grad_fn.name()!r}, which the explainer cannot see "
                    "into (a custom autograd function or a compiled extension). Write it with torch operations."
                )
