"""Terms that occur twice in a sum: h + z * (n - h) is (1 - z) * h + z * n; h + (q - h).detach() stands for h."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from rnnx_lightning.explain.elementwise import never_negative
from rnnx_lightning.explain.linear import IDENTITY
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.pixels import Pixels
from rnnx_lightning.explain.rows import CONSTANT, DETACHED, LINEAR, MOVE, PASS, SCALE, SUM, UNMOVED, Scaling
from rnnx_lightning.explain.tape import Tape

Factor = Tensor | float
MULTIPLE = Scaling(1.0, False, False)
CANCELLED = Scaling(0.0, True, False)
NODES = 12  # so many are looked at on each side: a state that moves towards another is written in fewer


class Term(NamedTuple):
    """A term of a sum, what scales it there, and whether a gate does, or the sum it is taken from is detached."""

    node: Node
    factor: Factor
    gated: bool = False
    detached: bool = False


def united(tape: Tape, value: Tensor, one: tuple[Node, Tensor], two: tuple[Node, Tensor]) -> Tensor | None:
    """Record a sum, if a term occurs on both sides, with the factor that it has altogether; else None.

    Apart, the two contributions of such a term would often be of opposite signs, although only what is left of
    them reaches the unit.
    """
    one, two = ((node.first, tensor) for node, tensor in (one, two))
    first, second = _base(one[0]), _base(two[0])
    if tape.composite.sums == "closed" or not (first is second or _of_terms(first) or _of_terms(second)):
        return None
    left, right = _reached(one[0]), _reached(two[0])
    twice = {key: base for key, base in left.items() if key in right}
    if not twice:
        return None
    by_base: dict[int, list[Term]] = {}
    for (node, tensor), reached in ((one, left), (two, right)):
        for term in _terms(Term(tape.as_sum(node, tensor), 1.0), reached, twice):
            by_base.setdefault(id(_base(term.node)), []).append(term)
    shared = [terms[0].node for terms in by_base.values() if len(terms) > 1]
    signals = [base for base in map(_base, shared) if base.row is not CONSTANT]
    if any(base.shape != value.shape for base in signals):
        return None
    groups = list(by_base.values())
    stood_for = _stood_for(groups)
    if stood_for is not None:
        return stands_for(tape, value, stood_for, nothing_else=len(groups) == 1)
    if len(groups) == 1 and tape.own_sum(base := _base(groups[0][0].node)) is None:
        return tape.note(value, Node(PASS, (base,), value, MULTIPLE, pixels=_pixels(groups[0])))
    parts = [_together(tape, value, same) for same in groups]
    made = Node(SUM, parts, value)
    tape.sum_of_sums(made, parts, value)
    return tape.note(value, made)


def stands_for(tape: Tape, value: Tensor, node: Node, nothing_else: bool = False) -> Tensor:
    """Record a constant that stands for a value, and gets its relevance, also where the value is 0.

    If there is `nothing_else` yet, as of h - h.detach(), this is what is added to it.
    """
    made = Node(PASS, (node,), value, CANCELLED if nothing_else else None)
    made.filled = True
    return tape.note(value, made)


def _reached(node: Node) -> dict[int, Node]:
    """What a sum is made of, the nearest first, by id."""
    ahead, reached, copies = [node], dict[int, Node](), set[int]()
    for each in ahead:
        if len(reached) - len(copies) == NODES:
            break
        base = _base(each)
        while _copies_sum(base):  # its own node and that of the sum are one
            reached[id(base)] = base
            copies.add(id(base))
            base = _base(_known(base)[0])
        reached[id(base)] = base
        if _of_terms(base):
            ahead += _known(base)
    return reached


def _terms(term: Term, reached: dict[int, Node], wanted: dict[int, Node]) -> list[Term]:
    """The terms of a sum, taken apart only as far as the wanted ones."""
    node, factor, gated, detached = term
    detached |= node.row is MOVE and node.gate
    key = id(_base(node))
    if key in wanted or key not in reached or not _of_terms(node):
        return [Term(node, factor, gated, detached)]
    if node.row is SCALE:
        factor, gated = factor * node.call.factor, gated or node.gated
    parts = (_terms(Term(source, factor, gated, detached), reached, wanted) for source in _known(node))
    return [part for found in parts for part in found]


def _base(term: Node) -> Node:
    """What a term is a multiple of: the activation of which it is a scaled one, or itself."""
    return _way_to_base(term)[-1]


def _way_to_base(term: Node) -> list[Node]:
    way = [term]
    if term.row is LINEAR:
        if [part.layer.operation for part in term.call.maps] != [IDENTITY]:
            return way
        way += _known(term)
    while (way[-1].row is PASS and isinstance(way[-1].call, Scaling)) or (
        (way[-1].call is UNMOVED or way[-1].call is DETACHED) and way[-1].rule is None
    ):
        way += _known(way[-1])
    return way


def _of_terms(node: Node) -> bool:
    """Whether a sum is made of others: added, scaled or detached."""
    return node.row in (SCALE, SUM) or _copies_sum(node)


def _copies_sum(node: Node) -> bool:
    """Whether a sum is the same as another: detached, or read back from a tensor that it was joined to."""
    return node.row is MOVE and node.call is UNMOVED and node.rule is not None


def _stood_for(groups: Sequence[Sequence[Term]]) -> Node | None:
    """The term of which only constants are left, or None: h of h + (q - h).detach(), q being looked up for h."""
    signals = [terms for terms in groups if _base(terms[0].node).row is not CONSTANT]
    if len(signals) != 1:
        return None
    (terms,) = signals
    if not any(_detached(term) for term in terms):
        return None
    same = all(term.node is terms[0].node for term in terms)
    left = torch.as_tensor(sum(term.factor for term in terms) if same else _multiples(terms))
    return None if bool(left.any()) else _base(terms[0].node)


def _detached(term: Term) -> bool:
    """Whether a term is detached, itself or in a sum."""
    return term.detached or any(node.row is MOVE and node.gate for node in _way_to_base(term.node))


def _multiples(terms: Sequence[Term]) -> Tensor:
    """The sum of an activation's multiples."""
    first, *others = (term.node.call.maps[0].layer.value * term.factor for term in terms)
    return sum(others, first)


def _together(tape: Tape, value: Tensor, terms: Sequence[Term]) -> Node:
    """All occurrences of a term as one."""
    first, base = terms[0].node, _base(terms[0].node)
    if len(terms) == 1 or all(term.node is first for term in terms):
        factor = sum((term.factor for term in terms[1:]), terms[0].factor)
        return _scaled(tape, value, first, factor, any(term.gated for term in terms))
    whole = _multiples(terms)
    made = tape.append(Node(PASS, (base,), whole, pixels=_pixels(terms)))
    return tape.as_sum(made, whole)


def _pixels(terms: Sequence[Term]) -> Pixels | None:
    """The pixels of the sum of a pixel's multiples; None if it is no pixel."""
    if _base(terms[0].node).pixels is None:
        return None
    parts = [term.node.call.maps[0].layer.pixels.affine(term.factor, 0.0) for term in terms]
    scale, shift = sum(part.scale for part in parts), sum(part.shift for part in parts)
    return replace(parts[0], scale=scale, shift=shift)


def _scaled(tape: Tape, value: Tensor, node: Node, factor: Factor, gated: bool) -> Node:
    """A term with a factor."""
    if isinstance(factor, float) and factor == 1:
        return node
    made = tape.scaled_sum(node, factor, never_negative(factor), value)
    made.by_value = node.by_value
    if gated or node.gated:
        made.mark_gated()
    return tape.append(made)


def _known(node: Node) -> list[Node]:
    return [source.first for source in node.sources if source is not None]
