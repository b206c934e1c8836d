"""Terms that occur twice in a sum: h + z * (n - h) is (1 - z) * h + z * n."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

from torch import Tensor

from rnnx_lightning.explain.elementwise import never_negative
from rnnx_lightning.explain.linear import IDENTITY
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import LINEAR, MOVE, PASS, SCALE, SUM, UNMOVED, Scaling
from rnnx_lightning.explain.tape import Tape
from rnnx_lightning.explain.totals import EVERY

Factor = Tensor | float
NODES = 8  # so many are looked at on each side: a state that moves towards another is written in fewer


class Term(NamedTuple):
    """A term of a sum, and what scales it there."""

    node: Node
    factor: Factor


def united(tape: Tape, value: Tensor, one: tuple[Node, Tensor], two: tuple[Node, Tensor]) -> Tensor | None:
    """Record a sum, if a term occurs on both sides, with the factor that it has altogether; else None.

    Apart, the two contributions of such a term would often be of opposite signs, although only what is left of
    them reaches the unit.
    """
    if tape.composite.sums == "closed":
        return None
    left, right = _reached(one[0]), _reached(two[0])
    twice = {key: base for key, base in left.items() if key in right}
    if not twice:
        return None
    by_base: dict[int, list[Term]] = {}
    for (node, tensor), reached in ((one, left), (two, right)):
        for term in _terms(tape.as_sum(node, tensor), 1.0, reached, twice):
            by_base.setdefault(id(_base(term.node)), []).append(term)
    shared = [terms[0].node for terms in by_base.values() if len(terms) > 1]
    if any(base.shape != value.shape or _reads_pixels(base) for base in map(_base, shared)):
        return None
    parts = [_together(tape, value, same) for same in by_base.values()]
    made = Node(SUM, parts, value)
    rules = [part.rule for part in parts if part.rule is not None]  # all are sums
    tape.sum_of(made, reduce(tape.common_rule, rules), value, all(part.by_value for part in parts))
    made.constant, made.scaled = any(part.constant for part in parts), any(part.scaled for part in parts)
    made.depth = max(part.depth for part in parts)
    return tape.note(value, made)


def _reached(node: Node) -> dict[int, Node]:
    """What a sum is made of, the nearest first, by id."""
    ahead, reached = [node], dict[int, Node]()
    for each in ahead:
        if len(reached) == NODES:
            break
        base = _base(each)
        reached[id(base)] = base
        if _of_terms(base):
            ahead += _known(base)
    return reached


def _terms(node: Node, factor: Factor, reached: dict[int, Node], wanted: dict[int, Node]) -> list[Term]:
    """The terms of a sum, taken apart only as far as the wanted ones."""
    key = id(_base(node))
    if key in wanted or key not in reached or not _of_terms(node):
        return [Term(node, factor)]
    if node.row is SCALE:
        factor = factor * node.call.factor
    return [term for source in _known(node) for term in _terms(source, factor, reached, wanted)]


def _reads_pixels(base: Node) -> bool:
    """Whether a term is of pixels, or a layer that reads them by a rule of their own."""
    return base.pixels is not None or (base.rule is not None and base.rule.adapts)


def _base(term: Node) -> Node:
    """What a term is a multiple of: the activation of which it is a scaled one, or itself."""
    if term.row is LINEAR:
        if [part.layer.operation for part in term.call.maps] != [IDENTITY]:
            return term
        (term,) = _known(term)
    while (term.row is PASS and isinstance(term.call, Scaling)) or (term.call is UNMOVED and term.rule is None):
        (term,) = _known(term)
    return term


def _of_terms(node: Node) -> bool:
    """Whether a sum is made of others: added, scaled or detached."""
    return node.row in (SCALE, SUM) or (node.row is MOVE and node.call is UNMOVED and node.rule is not None)


def _together(tape: Tape, value: Tensor, terms: Sequence[Term]) -> Node:
    """All occurrences of a term as one."""
    first, base = terms[0].node, _base(terms[0].node)
    if len(terms) == 1 or all(term.node is first for term in terms):
        return _scaled(tape, value, first, sum((term.factor for term in terms[1:]), terms[0].factor))
    parts = [term.node.call.maps[0].layer.value * term.factor for term in terms]  # an activation's multiples
    whole = sum(parts[1:], parts[0])
    return tape.as_sum(tape.append(Node(PASS, (base,), whole)), whole)


def _scaled(tape: Tape, value: Tensor, node: Node, factor: Factor) -> Node:
    """A term with a factor."""
    if isinstance(factor, float) and factor == 1:
        return node
    depth = node.depth + 1
    normalise = depth % EVERY == 0
    positive = never_negative(factor) if isinstance(factor, Tensor) else factor >= 0
    made = Node(SCALE, (node,), value, Scaling(factor, positive, normalise))
    made.rule, made.by_value, made.constant = node.rule, node.by_value, node.constant
    made.depth, made.scaled = depth, node.scaled or normalise
    return tape.append(made)


def _known(node: Node) -> list[Node]:
    return [source for source in node.sources if source is not None]
