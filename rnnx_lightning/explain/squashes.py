"""Skips sigmoids and softmaxes at the output of a network, so that logits are explained."""

from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from rnnx_lightning.explain.inputs import rebuilt, values_in
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.gates import logits_of
from rnnx_lightning.explain.refusals import UnexplainableError
from rnnx_lightning.explain.rows import JOIN, MOVE
from rnnx_lightning.explain.tape import Tape


def without_squash(tape: Tape, output: Any) -> Any:
    """The output before sigmoids or softmaxes at its end; moves of entries after them are applied to the logits.

    Works on a tensor, and on containers of tensors, whose types are kept.

    Raises:
        UnexplainableError: only some entries of a tensor went through a sigmoid or softmax.
    """
    if isinstance(output, PackedSequence):
        return output._replace(data=without_squash(tape, output.data))
    if (values := values_in(output)) is not None:
        return rebuilt(output, [without_squash(tape, value) for value in values])
    top = tape.find(output)
    made = [] if top is None else _made_of(tape, top)
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
                "Only some entries of the network's output come from a sigmoid or softmax at its end; others do "
                "not, or were written into a constant. So logits would be mixed with other numbers. Return logits "
                "from the network, or return the two kinds as separate tensors."
            )
        value = node.call.apply(given[0] if node.row is MOVE else given)
        found = [tape.find(part) for part in given]
        if node.row is MOVE:
            assert found[0] is not None  # depends on the input
            logits[id(node)] = tape.move(value, found[0], node.call)
        else:
            logits[id(node)] = tape.join(value, found, given, node.call, node.call.apply)
    return logits[id(top)]


def _made_of(tape: Tape, top: Node) -> list[Node]:
    """The nodes that an output is assembled from, each after its sources. Does not recurse: they may be many."""
    ordered, seen, ahead = [], {id(top)}, [(top, False)]
    while ahead:
        node, done = ahead.pop()
        node.logits = logits_of(tape, node)
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
