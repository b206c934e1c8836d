"""The autograd graph of a value: which operations computed it, from what."""

import re
from functools import cache
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from rnnx_lightning.explain.refusals import FROM_PYTHON

_SUFFIX = re.compile(r"Backwards?\d*$")


def operation(node: Any) -> str:
    """Name of the operation whose backward pass a node is: "Mul" for a `MulBackward0`."""
    return _short(node.name())


@cache
def _short(name: str) -> str:
    return _SUFFIX.sub("", name.rpartition("::")[2])


HOOKS = "BackwardHookFunction"  # of a module with backward hooks; it changes nothing


def is_opaque(node: Any) -> bool:
    """Whether the node is a custom autograd function, whose operations cannot be seen."""
    hidden = isinstance(node, BackwardCFunction) or type(node).__name__ == "CppFunction"
    return hidden and operation(node) != HOOKS


def instead_of(node: Any) -> str:
    """What to do instead of an opaque function."""
    return FROM_PYTHON if "torch::jit::" in node.name() else "Write it with torch operations."


def operations(value: Tensor) -> list[Any]:
    """All nodes in the graph of `value`, in topological order: each after the nodes it depends on.

    This does not recurse, because the graph of a recurrent network is as deep as its sequence is long. Delete the
    value before the list: torch frees recursively the nodes that Python has seen and no longer holds.
    """
    ordered: list[Any] = []
    opened: set[Any] = {None}
    done: set[Any] = {None}
    ahead: list[Any] = [value.grad_fn]
    while ahead:
        node = ahead[-1]
        if node not in opened:
            opened.add(node)
            ahead += [before for before, _ in node.next_functions if before not in opened]
            continue
        ahead.pop()
        if node not in done:
            done.add(node)
            ordered.append(node)
    return ordered
