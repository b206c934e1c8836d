"""A network's last sigmoids or softmaxes, which are no part of what is explained."""

from typing import Any

from torch import Tensor

from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.refusals import UnexplainableError
from rnnx_lightning.explain.rows import JOIN, MOVE
from rnnx_lightning.explain.tape import Tape


def without_squash(tape: Tape, output: Any) -> Any:
    """An output, or all in a structure of outputs, before its last sigmoids or softmaxes and what has moved since.

    Raises:
        UnexplainableError: some entries of a tensor were squashed, and others were not.
    """
    if isinstance(output, dict):
        return {key: without_squash(tape, value) for key, value in output.items()}
    if type(output) in (tuple, list):
        return type(output)(without_squash(tape, value) for value in output)
    top = tape.find(output)
    made = [] if top is None else _made_of(top)
    if top is None or all(node.logits is None for node in made):
        return output
    logits: dict[int, Tensor] = {}
    for node in made:
        if node.logits is not None:
            logits[id(node)] = node.logits
            continue
        parts = [None if source is None else logits.get(id(source)) for source in node.sources]
        given = [part for part in parts if part is not None]
        if len(given) < len(parts):
            raise UnexplainableError(
                "Some entries of the network's output are made by a last sigmoid or softmax, and others are not "
                "or were written into a constant: what is explained would be logits beside numbers of another "
                "kind. Let the network give logits, or each as a tensor of its own."
            )
        value = node.call.apply(given[0] if node.row is MOVE else given)
        found = [tape.find(part) for part in given]
        if node.row is MOVE:
            assert found[0] is not None  # made of the input
            logits[id(node)] = tape.move(value, found[0], node.call)
        else:
            logits[id(node)] = tape.join(value, found, given, node.call, node.call.apply)
    return logits[id(top)]


def _made_of(top: Node) -> list[Node]:
    """What an output is put together from, each after its own sources; does not recurse, as there may be many."""
    ordered, seen, ahead = [], {id(top)}, [(top, False)]
    while ahead:
        node, done = ahead.pop()
        moved = node.logits is None and (node.row is MOVE or node.row is JOIN)
        if done or not moved:
            if moved or node.logits is not None:
                ordered.append(node)
            continue
        ahead.append((node, True))
        for source in node.sources:
            if source is not None and id(source) not in seen:
                seen.add(id(source))
                ahead.append((source, False))
    return ordered
