"""The tape: one node for each operation on the input, recorded while a network runs once.

A `TorchDispatchMode` sees the operations below autograd, where layers and fused functions are broken down into a
few dozen basic operations. Recording does not change what is computed. Decisions that depend on later operations
are left to the backward pass.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload

from rnnx_lightning.explain.comparisons import forget, noted
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.linear import IDENTITY, LinearMap, Operation, WeightParts, held
from rnnx_lightning.explain.mixed import others, rule_of_all, sum_of_mixed
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.notes import Notes
from rnnx_lightning.explain.out_of_sight import filled, hidden, made
from rnnx_lightning.explain.overwriting import alias, current, overwrite, run, was_read
from rnnx_lightning.explain.pixels import Pixels, joined, present_of
from rnnx_lightning.explain.refusals import AS_WEIGHTS, HIGHER_ORDER, IN_INFERENCE_MODE, UnexplainableError
from rnnx_lightning.explain.rows import (
    CONSTANT,
    JOIN,
    LINEAR,
    MOVE,
    OPAQUE,
    PASS,
    SCALE,
    SUM,
    Joining,
    Map,
    MapCall,
    Movement,
    Scaling,
    forget_value,
)
from rnnx_lightning.explain.rules import PROPORTIONAL, Rule
from rnnx_lightning.explain.sides import sides
from rnnx_lightning.explain.totals import EVERY
from rnnx_lightning.explain.views import viewed

COMPLEX = "complex"  # (operation, COMPLEX): the key in the table of what is done to complex numbers
Recorder = Callable[..., Any]  # (tape, func, *args, **kwargs) -> the result of the operation


class Tape(Notes):
    """A context that records the operations on the inputs.

    Args:
        composite: chooses the rule of each operation.
        path: the running module.
        table: maps an operation to its recorder.
        harmless: operations whose results do not depend on the values of the input.
        scales: recorders of operations that compute scales. These may depend on values that relevance cannot go
            back from, because they get no relevance.
        advice: maps the name of an operation without a rule to what to do instead.
        steps: of fused recurrent layers, the values of so many time steps are in memory at a time; None: of all.
    """

    def __init__(
        self,
        composite: Composite,
        path: ModulePath,
        table: Mapping[Any, Recorder],
        harmless: Iterable[Any],
        scales: Container[Recorder],
        advice: Mapping[str, str],
        steps: int | None = None,
    ) -> None:
        super().__init__(composite, path, advice)
        self.parts, self.steps = WeightParts(), steps
        self.table, self.harmless, self._scales = table, harmless, scales
        self.retired: dict[int, tuple[Tensor, Tensor]] = {}  # by replaced storage: its tensor, its old content
        self.read: dict[int, Tensor] = {}  # by storage: a constant that an operation has read

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Handle one operation."""
        if type(func) is not OpOverload and isinstance(func, HigherOrderOperator):
            raise UnexplainableError(HIGHER_ORDER.format(func.name(), self.path))
        try:
            return run(self.record, func, args, kwargs or {})
        except UnexplainableError as error:
            self.raised = error
            raise

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation, and record it if one of its arguments depends on the input."""
        first: Any = args[0] if args else None
        if self.retired:
            args = tuple(current(self, a) for a in args)
        known, constants, any_complex = [], False, False
        for argument in args:
            for part in argument if type(argument) in (list, tuple) else (argument,):
                if isinstance(part, Tensor):
                    any_complex |= part.is_complex()
                    if self.find(part) is not None or hidden(self, func, args, kwargs, part):
                        known.append(part)
                    else:
                        constants = True
                else:
                    any_complex |= type(part) is complex
        if not known or func in self.harmless:
            if not known and self.overwrites(func):
                forget(first)
                if self.unwritten:
                    filled(self, func, args, kwargs)
                if was_read(self, first):
                    return overwrite(self, func, first, args, kwargs)
            return made(self, func, noted(self, func, args, func(*args, **kwargs)))
        if torch.is_inference_mode_enabled():
            raise UnexplainableError(IN_INFERENCE_MODE.format(self.path))
        if len(known) > 1:  # where entries are is a choice: what is chosen has the relevance
            known = [part for part in known if part.is_floating_point() or part.is_complex()] or known
        if self.overwrites(func):
            return overwrite(self, func, first, args, kwargs)
        if constants:
            args = tuple(alias(self, a) for a in args)
        recorder = self.table.get((func, COMPLEX) if any_complex else func)
        if self.any_refused and recorder not in self._scales and any(map(self.has_no_way_back, known)):
            return self.refused(func, func(*args, **kwargs), "", *known)
        if recorder is None:
            return self.opaque(func, args, kwargs)
        result = recorder(self, func, *args, **kwargs)
        if func.is_view:
            viewed(self, func, args, kwargs, result)
        return result

    def overwrites(self, func: Any) -> bool:
        """Whether an operation is an in-place form; random leaky ReLU only overwrites its noise."""
        return func._schema.is_mutable and func not in self.table

    # -- linear maps -----------------------------------------------------------------------------------------

    def linear(
        self,
        func: Any,
        source: Tensor,
        operation: Operation,
        weight: Tensor | None,
        bias: Tensor | None,
        value: Tensor,
    ) -> Tensor:
        """Record one call of a linear operation.

        Args:
            func: the operation, for messages.
            source: the argument that depends on the input.
            operation: the operation without bias.
            weight: the constant factor; None if there is none and all weights are >= 0.
            bias: broadcastable to the output.
            value: the output.
        """
        node = self.find(source)
        if node is None or self.signal(weight) or self.signal(bias):
            return self.refused(
                func, value, "Only one of its factors may depend on the input.", source, weight, bias
            )
        if node.weights and weight is not None:  # of other heads, or of matrices that they choose among
            return self.gate_of(value, node, nonnegative=False, refusal=AS_WEIGHTS, func=func)
        new = self.mapped(node, source, operation, weight, bias, value)
        new.nonnegative = weight is None and bias is None and node.nonnegative and node.pixels is None
        if weight is None and bias is None:  # of gates, it scales signals, too; times constants, it is a layer
            new.gate, new.magnitude, new.weights = node.gate, node.magnitude, node.weights
            if node.present is not None:
                new.present = operation.apply(node.present.to(value.dtype), None) != 0
        return self.note(value, new)

    def mapped(
        self,
        node: Node,
        source: Tensor,
        operation: Operation,
        weight: Tensor | None,
        bias: Tensor | None,
        value: Tensor,
    ) -> Node:
        """The node of a linear map, with its rule."""
        own = held(source) if source.is_floating_point() else source
        layer = LinearMap(own, operation, weight, bias, node.nonnegative, node.pixels, self.parts)
        layer.present = node.present
        maps, rule = self._maps(layer)
        new = Node(LINEAR, (node,), value, MapCall(maps))
        self.sum_of(new, rule, value, all(m.rule.plain for m in maps))
        new.constant, new.two_rules = bias is not None, len({m.rule.adapts for m in maps}) > 1
        layer.output = new.value if new.value is not None or bias is not None else held(value)
        return new

    def sum_of(self, node: Node, rule: Rule, value: Tensor, plain: bool) -> None:
        """Mark a node as a sum of contributions."""
        node.rule = rule
        node.by_value = plain and node.present is None
        if rule.sharing != PROPORTIONAL or self.path.outputs:
            node.value = held(value)

    def sum_of_sums(self, node: Node, terms: Sequence[Node], value: Tensor) -> None:
        """Mark a node as a sum of sums, or as one that was moved."""
        rules = [term.rule for term in terms if term.rule is not None]  # all are sums
        self.sum_of(node, reduce(self.common_rule, rules), value, all(term.by_value for term in terms))
        node.of_terms(terms)

    def scaled_sum(self, node: Node, factor: Tensor | float, nonnegative: bool, like: Tensor | Node) -> Node:
        """The node of a sum times a factor. After so many scalings, its totals get exponents."""
        if node.two_rules:
            own = [self.append(self.scaled_sum(side, factor, nonnegative, like)) for side in sides(self, node)]
            new = Node(SCALE, (node,), like, Scaling(factor, nonnegative, normalise=False))
            new.rule, new.sides = node.rule, own
            new.of_terms(own)
            for side in own:
                side.exact = True  # it is no source of the node, which would pass this on to it
            return new
        depth = node.depth + 1
        normalise = depth % EVERY == 0
        new = Node(SCALE, (node,), like, Scaling(factor, nonnegative, normalise))
        new.rule, new.constant, new.depth = node.rule, node.constant, depth
        new.scaled = node.scaled or normalise
        return new

    def _maps(self, layer: LinearMap) -> tuple[list[Map], Rule]:
        """The parts of a linear map (pixels, other features) with their rules, and the rule of the whole."""
        choose, pixels = self.composite.rule, layer.pixels
        rule = choose(self.path, reads_pixels=pixels is not None)
        if pixels is None or pixels.mask is None:
            return [Map(rule, layer)], rule
        if pixels.others_are_padding or layer.only_padded(pixels.mask):
            layer.where = pixels.mask
            return [Map(rule, layer)], rule
        other = choose(self.path, reads_pixels=False)
        if other is rule:
            return [Map(rule, layer)], rule
        if not rule.adapts:
            self.common_rule(rule, other)
        on_pixels, on_features = layer.only(pixels.mask, bias=False), layer.only(~pixels.mask, bias=True)
        on_features.pixels = None
        return [Map(rule, on_pixels), Map(other, on_features)], other

    def as_sum(self, node: Node, tensor: Tensor) -> Node:
        """A value as a sum of contributions: its own node, or a new sum with the value as its only term."""
        if self.composite.sums == "merged" and (own := self.own_sum(node)) is not None:
            return own
        term = self.append(self.mapped(node, held(tensor), IDENTITY, None, None, held(tensor)))
        term.present = node.present
        return term

    def own_sum(self, node: Node) -> Node | None:
        """The sum that a value is, entry by entry, or None."""
        if node.rule is not None:
            return node
        return None if node.others is None else sum_of_mixed(self, node)

    def common_rule(self, one: Rule, other: Rule) -> Rule:
        """The rule of a sum of two terms with rules, which need one denominator.

        Raises:
            UnexplainableError: the rules divide relevance in different ways.
        """
        if one is other or other.adapts:
            return one
        if one.adapts:
            return other
        if one.sharing != other.sharing:
            raise UnexplainableError(
                f"A sum{self.path} adds terms whose rules divide relevance in different ways ({one.sharing} and "
                f"{other.sharing}). Give both terms the same rule."
            )
        return one

    def add(self, value: Tensor, one: tuple[Node, Tensor], two: tuple[Node, Tensor]) -> Tensor:
        """Record a sum of two values that depend on the input."""
        terms = [self.as_sum(*one), self.as_sum(*two)]
        first, second = terms
        assert first.rule is not None
        assert second.rule is not None
        node = Node(SUM, terms, value)
        self.sum_of_sums(node, terms, value)
        if node.by_value:  # it needs no totals of its terms
            for term in terms:
                forget_value(term)
        node.nonnegative = all(n.nonnegative and n.pixels is None for n, _ in (one, two))
        return self.note(value, node)

    def add_constant(
        self, value: Tensor, node: Node, tensor: Tensor, constant: Tensor | float, bias: bool = False
    ) -> Tensor:
        """Record a sum of a value that depends on the input and a constant; `bias`: the constant is a bias."""
        term = self.own_sum(node) or self.as_sum(node, tensor)  # "closed" does not apply to constants
        assert term.rule is not None  # a sum
        rule = term.rule
        if not bias and rule.adapts and isinstance(constant, Tensor) and not self.path.has_bias(constant, value):
            # Not a bias, but a term that happens not to depend on the input, such as that of a start state.
            rule = self.composite.rule(self.path, reads_pixels=False)
        number = torch.as_tensor(constant, dtype=value.dtype, device=value.device)
        other = Node(CONSTANT, (), number, number)
        other.rule, other.constant, other.by_value = rule, True, True
        new = Node(SUM, (term, self.append(other)), value)
        self.sum_of(new, rule, value, term.by_value)
        new.of_terms([term, other])
        new.gated = node.gated
        return self.note(value, new)

    def gate_of(
        self,
        value: Tensor,
        *nodes: Node,
        nonnegative: bool | None = None,
        lost: bool | None = None,
        refusal: str | None = None,
        func: Any = None,
        entrywise: bool = False,
    ) -> Tensor:
        """Record a gate. Used as a signal, it passes relevance to the first node, unless this is refused.

        `entrywise`: each entry is computed from the same entries of the nodes.
        """
        if nonnegative is None:
            nonnegative = all(node.nonnegative for node in nodes)
        node, *_ = nodes
        new = Node(PASS, nodes[:1], value, gate=True)
        new.nonnegative = nonnegative
        new.lost = any(n.lost for n in nodes) if lost is None else lost
        new.magnitude, new.weights = all(n.magnitude for n in nodes), all(n.weights for n in nodes)
        new.reason = next((n.reason for n in nodes if n.reason is not None), None) or node.refusal
        if refusal is not None and new.reason is None:
            new.reason = self.message(func, refusal)
        if len(nodes) > 1 and new.reason is None:
            new.reason = (
                f"A product of two gates{self.path} is used as a signal: it is undefined which of them gets the "
                'relevance. Choose: Composite(..., products="half"), "left" or "right".'
            )
        if new.reason is not None:
            new.row, new.sources = OPAQUE, nodes if entrywise else ()
        return self.note(value, new)

    # -- moves -----------------------------------------------------------------------------------------------

    def move(self, value: Tensor, node: Node, movement: Movement, padding: bool = False) -> Tensor:
        """Record a value whose entries are entries of the source, or 0 if the operation adds `padding`."""
        new = Node(MOVE, (node,), value, movement, node.nonnegative, gate=node.gate)
        new.dtype = value.dtype if value.is_floating_point() else node.dtype  # int64 tokens have relevance, too
        new.lost, new.magnitude, new.weights = node.lost, node.magnitude, node.weights
        new.gated = node.gated
        if node.pixels is not None:
            new.pixels = node.pixels.moved(movement.apply, node.shape)
        if padding or node.present is not None:
            present = node.present
            if present is None:
                present = torch.ones(node.shape, dtype=torch.bool, device=node.device)
            new.present = movement.apply(present.expand(node.shape))
            if node.pixels is not None and node.pixels.mask is None and new.pixels is not None:
                new.pixels = Pixels(
                    new.present, new.pixels.scale, new.pixels.shift, node.pixels.others_are_padding
                )
        if node.rule is not None:
            self.sum_of_sums(new, [node], value)
        new.others = None if node.others is None else ()
        return self.note(value, new)

    def join(
        self,
        value: Tensor,
        nodes: list[Node | None],
        tensors: list[Tensor],
        joining: Joining,
        apply: Callable[[list[Tensor]], Tensor],
    ) -> Tensor:
        """Record that several tensors are joined; `apply` joins tensors of their shapes."""
        known = [node for node in nodes if node is not None]
        gate = all(node.gate for node in known)
        if not gate:  # a gate times a constant is a constant
            nodes = [None if node is not None and node.lost else node for node in nodes]
            known = [node for node in nodes if node is not None]
        new = Node(JOIN, nodes, value, joining)
        if not value.is_floating_point() and known:  # tokens
            new.dtype = known[0].dtype
        new.present = present_of(nodes, tensors, apply)
        new.gate = gate
        new.lost = gate and any(node.lost for node in known)
        new.magnitude = gate and any(node.magnitude for node in known)
        new.weights = gate and any(node.weights for node in known)
        new.gated = any(node.gated for node in known)
        zero = [bool((t == 0).all()) if n is None else False for n, t in zip(nodes, tensors, strict=True)]
        rule = rule_of_all(self, known)
        one_rule = rule is not None and all(n.rule is not None and n.rule.adapts == rule.adapts for n in known)
        if rule is not None and one_rule and all(n is not None or z for n, z in zip(nodes, zero, strict=True)):
            self.sum_of_sums(new, known, value)
        else:
            new.pixels = joined([None if n is None else n.pixels for n in nodes], tensors, apply)
            new.others = None if gate else others(nodes, tensors)
        new.nonnegative = all(
            bool((t >= 0).all())
            if n is None
            else n.nonnegative or (n.pixels is not None and n.pixels.mask is None)
            for n, t in zip(nodes, tensors, strict=True)
        )
        return self.note(value, new)
