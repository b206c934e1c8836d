"""Nodes attached to tensors, and refusals of operations without a rule."""

from collections.abc import Mapping
from functools import reduce
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.inputs import holds_pixels
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.pixels import Pixels
from rnnx_lightning.explain.refusals import FusedLayerError, UnexplainableError, name_of
from rnnx_lightning.explain.rows import LEAF, OPAQUE, PASS, RELU, SCALE, SUM
from rnnx_lightning.explain.storage import ByMemory, memory_of

NOTE = "_rnnx_node"  # the attribute of a tensor that holds its node


class Mode(TorchDispatchMode):
    """A context that sees all operations; those that run functions are refused by a message of ours."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: compilation is off anyway (`isolated`), and the check costs more than most operations."""
        return False


class Notes(Mode):
    """Keeps the nodes of tensors, and the reason if relevance cannot go back from one.

    Args:
        composite: chooses the rule of each operation.
        path: the running module.
        advice: maps the name of an operation without a rule to what to do instead.
    """

    def __init__(self, composite: Composite, path: ModulePath, advice: Mapping[str, str]) -> None:
        super().__init__()
        self.composite, self.path, self._advice = composite, path, advice
        self._nodes: list[ref[Node]] = []
        self.aliases: dict[int, tuple[Tensor, Tensor]] = {}  # with a graph, of constants that were read
        self.any_refused = False  # relevance cannot go back from some values
        self.raised: UnexplainableError | None = None
        # Memory that the network has made and no operation has written to: whether it was made of zeros.
        self.unwritten = ByMemory[bool]()
        self.noted = ByMemory[ref[Tensor]]()  # the first tensor with a node

    def leaf(self, tensor: Tensor, dtype: torch.dtype) -> Node:
        """Record an input, whose relevance has the given dtype."""
        node = Node(LEAF, (), tensor)
        node.pixels = Pixels() if holds_pixels(tensor) else None
        if node.pixels is None:  # tokens, or a mask of whole numbers: where it scales vectors, these take all
            node.gate = node.magnitude = True
        node.dtype = dtype
        self.note(tensor, node)
        return node

    def note(self, tensor: Tensor, node: Node) -> Tensor:
        """Record the node of a tensor."""
        if node.present is None:
            node.present = _still_present(node)
        setattr(tensor, NOTE, self.append(node))
        if tensor.layout is torch.strided:
            memory = tensor.untyped_storage()
            if memory._cdata not in self.noted:
                self.noted.put(memory, ref(tensor))
        return tensor

    def append(self, node: Node) -> Node:
        """Record a node, also one that belongs to no tensor of the network."""
        node.tape = self
        self._nodes.append(ref(node))
        return node

    def nodes(self) -> list[Node]:
        """The nodes in their order, without those that no tensor and no later node refers to.

        These get no relevance. They are freed while the network still runs, and so are the net inputs of gates.
        """
        found = (node() for node in self._nodes)
        return [node for node in found if node is not None]

    def mark(self, tensor: Tensor, node: Node | None) -> None:
        """Attach an existing node to a tensor, or remove its node."""
        if node is None:
            tensor.__dict__.pop(NOTE, None)
            self.noted.pop(memory_of(tensor), None)
        else:
            setattr(tensor, NOTE, node)

    def find(self, tensor: Any) -> Node | None:
        """The node of a tensor; None for constants and for anything that is not a tensor."""
        node: Node | None = getattr(tensor, NOTE, None)
        return node if node is not None and node.tape is self else None

    def node(self, tensor: Any) -> Node:
        """The node of a tensor that is known to have one: it was just recorded, or its operation was for it."""
        node = self.find(tensor)
        assert node is not None
        return node

    def stand_in(self, value: Tensor, made: Tensor) -> Tensor:
        """The tensor that the network continues with: its own `value`, with the node of `made`, which is equal.

        With a graph it is `made`, which has the graph.
        """
        if torch.is_grad_enabled():
            return made
        node = self.find(made)
        if node is not None and node.value is not None:
            node.value = value.detach()  # what follows is made of it: rounding may differ
        self.mark(value, node)
        return value

    # -- refusals --------------------------------------------------------------------------------------------

    def signal(self, tensor: Any) -> bool:
        """Whether a tensor depends on the input and is not a gate."""
        node = self.find(tensor)
        return node is not None and not node.gate

    def is_explained(self, tensor: Any) -> bool:
        """Whether a tensor gets relevance, were it used as a signal: also tokens, and gates that are signals."""
        node = self.find(tensor)
        return node is not None and (node.magnitude or not node.gate)

    def has_no_way_back(self, tensor: Any) -> bool:
        """Whether a tensor depends on the input through an operation that is refused."""
        node = self.find(tensor)
        return node is not None and node.refusal is not None

    def opaque(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Record an operation without a rule, which is refused if relevance reaches it."""
        name = name_of(func)
        if name == "mkldnn_rnn_layer":  # called by TorchScript or an exported network
            raise FusedLayerError(f"nn.LSTM runs as one operation of oneDNN{self.path}.")
        value = func(*args, **kwargs)
        advice = self._advice.get(name, "Use operations that have a rule, or register one: see docs/extending.md.")
        if name.endswith("_backward"):
            advice = "The network computes a gradient in its forward: write that derivative out, or detach it."
        return self.refused(func, value, advice, *args)

    def refused(self, func: Any, value: Any, advice: str, *sources: Any) -> Any:
        """Record that relevance cannot go back from a value. An earlier refusal of its sources has priority."""
        earlier = [
            node.refusal for node in map(self.find, sources) if node is not None and node.refusal is not None
        ]
        refusal = earlier[0] if earlier else self.message(func, advice)
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, Tensor) and part.is_nested:
                raise UnexplainableError(refusal)
            if isinstance(part, Tensor) and part.dtype != torch.bool:
                self.note(part, self.unknown(refusal, part))
        return value

    def message(self, func: Any, advice: str) -> str:
        """The message for a refused operation."""
        return f"No relevance rule for the operation {name_of(func)!r} ({func}){self.path}. {advice}"

    def unknown(self, refusal: str, value: Tensor) -> Node:
        """The node of a value that relevance cannot go back from."""
        node = Node(OPAQUE, (), value)
        node.refusal, self.any_refused = refusal, True
        return node


def _still_present(node: Node) -> Tensor | None:
    """Which entries are not padding: an activation, a scaled signal or a sum of padding is padding, too."""
    if node.row not in (PASS, RELU, SCALE, SUM) or node.gate or node.pixels is not None:
        return None
    parts: list[Tensor] = []
    for source in node.sources:
        if source is None or source.present is None:
            return None
        parts.append(source.present)
    return reduce(torch.logical_or, parts).expand(node.shape)
