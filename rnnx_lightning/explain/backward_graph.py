"""The autograd graph of a value, seen from outside: which operations made it, and by what."""

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

_SUFFIX = re.compile(r"Backwards?\d*$")


def operation(node: Any) -> str:
    """Name of the operation that a node is the backward pass of: "Mul" of a `MulBackward0`."""
    return _SUFFIX.sub("", node.name().rpartition("::")[2])


def is_opaque(node: Any) -> bool:
    """Whether what a node does cannot be seen: an autograd function of the network's own."""
    return isinstance(node, BackwardCFunction) or type(node).__name__ == "CppFunction"


def operations(value: Tensor) -> list[Any]:
    """The nodes of all operations that `value` was made by, each after those that it was made by itself.

    Nothing recurses: the graph of a recurrent network is as deep as its sequence is long. Let go of the value
    first, then of the list: torch frees nodes that Python has seen, and no longer holds, by recursion.
    """
    ordered: list[Any] = []
    seen: set[Any] = {None, value.grad_fn}
    ahead: list[tuple[Any, Iterator[Any]]] = [(value.grad_fn, _inputs(value.grad_fn))] if value.grad_fn else []
    while ahead:
        node, inputs = ahead[-1]
        unseen = next((before for before in inputs if before not in seen), None)
        if unseen is None:
            ordered.append(node)
            ahead.pop()
        else:
            seen.add(unseen)
            ahead.append((unseen, _inputs(unseen)))
    return ordered


def _inputs(node: Any) -> Iterator[Any]:
    return iter([before for before, _ in node.next_functions])
