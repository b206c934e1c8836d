"""A sum that reads pixels by their own rule, beside other terms, as two sums.

What scales it acts differently on the two: a rule for pixels gives a negated sum positive contributions, too.
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import JOIN, LINEAR, MapCall

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape


def sides(tape: "Tape", node: Node) -> Sequence[Node]:
    """The sums of the terms whose rule adapts, and of the others."""
    ahead = [node]
    while ahead:  # does not recurse: sums can be as deep as the sequence is long
        current = ahead[-1]
        missing = [s for s in current.sources if s is not None and s.two_rules and s.sides is None]
        if missing:
            ahead += missing
            continue
        ahead.pop()
        if current.sides is None:
            current.sides = [_side(tape, current, adapts) for adapts in (True, False)]
    assert node.sides is not None  # it was the last one
    return node.sides


def _side(tape: "Tape", node: Node, adapts: bool) -> Node:
    """One of the two sums of a sum, given those of its terms."""
    if node.row is LINEAR:
        maps = [each for each in node.call.maps if each.rule.adapts is adapts]
        made = Node(LINEAR, node.sources, node, MapCall(maps))
        made.rule, made.constant = maps[0].rule, any(each.layer.bias is not None for each in maps)
    else:
        terms = [None if source is None else _term(source, adapts) for source in node.sources]
        known = [term for term in terms if term is not None]
        made = Node(node.row, terms if node.row is JOIN else known, node, node.call)
        made.rule = reduce(tape.common_rule, [term.rule for term in known if term.rule is not None])
        made.of_terms(known)
    return tape.append(made)


def _term(source: Node, adapts: bool) -> Node | None:
    if source.sides is not None:
        return source.sides[0 if adapts else 1]
    assert source.rule is not None  # it is a sum
    return source if source.rule.adapts is adapts else None
