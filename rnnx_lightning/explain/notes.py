"""What is known of tensors: a node is an attribute of its tensor."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.pixels import Pixels
from rnnx_lightning.explain.refusals import name_of
from rnnx_lightning.explain.rows import LEAF, OPAQUE

NOTE = "_rnnx_node"  # an attribute of tensors


class Notes(TorchDispatchMode):
    """Notes what tensors are, and why there is no way back from some.

    Args:
        composite: which operation gets which rule.
        path: where in the network we are.
        advice: name of an operation that has no rule to what to do instead.
    """

    def __init__(self, composite: Composite, path: ModulePath, advice: Mapping[str, str]) -> None:
        super().__init__()
        self.composite, self.path, self._advice = composite, path, advice
        self.nodes: list[Node] = []

    def leaf(self, tensor: Tensor, dtype: torch.dtype) -> Node:
        """Note an input; relevance is of this type."""
        node = Node(LEAF, (), tensor)
        node.pixels = Pixels() if tensor.is_floating_point() else None
        if node.pixels is None:  # tokens, or a mask of whole numbers: where it scales vectors, these take all
            node.gate = node.magnitude = True
        node.dtype = dtype
        self.note(tensor, node)
        return node

    def note(self, tensor: Tensor, node: Node) -> Tensor:
        """Write down what a tensor is."""
        node.tape = self
        self.nodes.append(node)
        setattr(tensor, NOTE, node)
        return tensor

    @staticmethod
    def mark(tensor: Tensor, node: Node | None) -> None:
        """Let a tensor be what a node says, or nothing that is known."""
        if node is None:
            tensor.__dict__.pop(NOTE, None)
        else:
            setattr(tensor, NOTE, node)

    def find(self, tensor: Any) -> Node | None:
        """What is known of a tensor; None for constants, and whatever is no tensor."""
        node: Node | None = getattr(tensor, NOTE, None)
        return node if node is not None and node.tape is self else None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Compilation is off anyway (`isolated`); to say so again would cost more than most operations."""
        return False

    # -- refusals --------------------------------------------------------------------------------------------

    def signal(self, tensor: Any) -> bool:
        """Whether a tensor is made of the input, and is no gate."""
        node = self.find(tensor)
        return node is not None and not node.gate

    def has_no_way_back(self, tensor: Any) -> bool:
        """Whether a tensor is made of the input by something that is refused."""
        node = self.find(tensor)
        return node is not None and node.refusal is not None

    def opaque(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that has no rule: refused if relevance comes back to it."""
        value = func(*args, **kwargs)
        name = name_of(func)
        advice = self._advice.get(
            name, "Write it with operations that have one, or give it one: see docs/extending.md."
        )
        return self.refused(func, value, advice, *args)

    def refused(self, func: Any, value: Any, advice: str, *sources: Any) -> Any:
        """Note that there is no way back from a value; what its sources were refused for comes first."""
        earlier = [
            node.refusal for node in map(self.find, sources) if node is not None and node.refusal is not None
        ]
        refusal = earlier[0] if earlier else self.message(func, advice)
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, Tensor) and part.dtype != torch.bool:
                self.note(part, self._opaque(refusal, part))
        return value

    def message(self, func: Any, advice: str) -> str:
        """Why an operation is refused."""
        return f"No relevance rule for the operation {name_of(func)!r} ({func}){self.path}. {advice}"

    @staticmethod
    def _opaque(refusal: str, value: Tensor) -> Node:
        node = Node(OPAQUE, (), value)
        node.refusal = refusal
        return node
