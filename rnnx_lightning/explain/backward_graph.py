"""The autograd graph of a value: which operations computed it, from what."""

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

_SUFFIX = re.compile(r"Backwards?\d*$")


def operation(node: Any) -> str:
    """Name of the operation whose backward pass a node is: "Mul" for a `MulBackward0`."""
    return _SUFFIX.sub("", node.name().rpartition("::")[2])


HOOKS = "BackwardHookFunction"  # of a module with backward hooks; it changes nothing


def is_opaque(node: Any) -> bool:
    """Whether the node is a custom autograd function, whose operations cannot be seen."""
    if operation(node) == HOOKS:
        return False
    return isinstance(node, BackwardCFunction) or type(node).__name__ == "CppFunction"


def operations(value: Tensor) -> list[Any]:
    """All nodes in the graph of `value`, in topological order: each after the nodes it depends on.

    This does not recurse, because the graph of a recurrent network is as deep as its sequence is long. Delete the
    value before the list: torch frees recursively the nodes that Python has seen and no longer holds.
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
