"""Tensors that hold sums beside other entries: `state = torch.cat([h, c], 1)` with a memory c and h = o tanh(c).

Each entry counts as what it is. Where the tensor, or a part of it, becomes a term of a sum, its entries that are
sums are merged with that sum, as they are without the tensor in between. The others become sums of one term.
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from torch import Tensor

from rnnx_lightning.explain.linear import IDENTITY, held
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import LEAF, PASS
from rnnx_lightning.explain.rules import Rule

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape


def others(nodes: Sequence[Node | None], tensors: Sequence[Tensor]) -> Sequence[Tensor | None] | None:
    """The values of those parts of a joined tensor that are neither sums nor mixed; None if it is not mixed."""
    inside = [node is not None and (node.rule is not None or node.others is not None) for node in nodes]
    if not any(inside):
        return None
    return [None if known else held(tensor) for known, tensor in zip(inside, tensors, strict=True)]


def sum_of_mixed(tape: "Tape", node: Node) -> Node | None:
    """A mixed value as a sum; None if the rules of its parts divide relevance in different ways."""
    ahead = [node]
    while ahead:  # does not recurse: a buffer is written as often as the sequence is long
        current = ahead[-1]
        missing = [s for s in current.sources if s is not None and s.others is not None and s.twin is None]
        if missing:
            ahead += missing
            continue
        ahead.pop()
        if current.twin is None:
            current.twin = _sum_of_parts(tape, current)
            if current.twin is None:
                return None
    return node.twin


def _sum_of_parts(tape: "Tape", node: Node) -> Node | None:
    """The same for a value whose mixed sources are known as sums."""
    values = node.others or [None] * len(node.sources)
    terms = [_term(tape, source, value) for source, value in zip(node.sources, values, strict=True)]
    known = [term for term in terms if term is not None]
    signals = [term for term, source in zip(terms, node.sources, strict=True) if term and source]
    rule = rule_of_all(tape, signals)  # not of constants, which may be what a buffer held before
    if rule is None:
        return None
    if node.row is PASS:  # it is scaled
        twin = tape.scaled_sum(known[0], node.call.factor, node.call.nonnegative, node)
    else:
        twin = Node(node.row, terms, node, node.call)
        twin.rule = rule
        twin.of_terms(known)
    twin.nonnegative, twin.present = node.nonnegative, node.present
    if node.gated:
        twin.mark_gated()
    return tape.append(twin)


def _term(tape: "Tape", source: Node | None, value: Tensor | None) -> Node | None:
    if source is not None and (source.rule is not None or source.twin is not None):
        return source if source.rule is not None else source.twin
    assert value is not None  # kept, as it is neither a sum nor mixed
    if source is None:
        if not bool(value.any()):
            return None
        source = Node(LEAF, (), value)  # a constant; what it gets is lost
    return tape.append(tape.mapped(source, value, IDENTITY, None, None, value))


def rule_of_all(tape: "Tape", nodes: Sequence[Node]) -> Rule | None:
    """The common rule of sums; None if one is no sum, or if their rules divide relevance in different ways."""
    rules = [node.rule for node in nodes if node.rule is not None]
    ways = [rule.sharing for rule in rules if not rule.adapts]
    if len(rules) < len(nodes) or any(way != ways[0] for way in ways):
        return None
    return reduce(tape.common_rule, rules) if rules else None
