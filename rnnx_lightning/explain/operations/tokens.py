"""Embeddings of tokens, and packed sequences."""

from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.linear import Operation, held
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.shapes import by_gradient, moving
from rnnx_lightning.explain.operations.table import aten, records
from rnnx_lightning.explain.operations.writes import writing
from rnnx_lightning.explain.rows import EMBEDDING, MOVE, PASS, Movement
from rnnx_lightning.explain.tape import Tape

REMAINDERS = frozenset(
    getattr(getattr(aten, name), overload) for name in ("remainder", "fmod") for overload in ("Tensor", "Scalar")
)


@records("remainder floor_divide div.Tensor_mode div.Scalar_mode fmod bitwise_and bitwise_or bitwise_xor")
def whole_numbers(
    tape: Tape, func: Any, one: Any, two: Any, *args: Any, value: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """Arithmetic of tokens: a token that is made of one token has its relevance."""
    value = func(one, two, *args, **kwargs) if value is None else value
    nodes = [node for node in map(tape.find, (one, two)) if node is not None]
    if func in REMAINDERS and value.is_floating_point() and tape.find(two) is None and not nodes[0].gate:
        return tape.note(value, Node(PASS, nodes, value))  # 0 at 0, as what is rounded
    if len(nodes) > 1 or value.is_floating_point():
        advice = "It has a rule for tokens only, one of which may depend on the input."
        return tape.refused(func, value, advice, one, two)
    new = Node(PASS, nodes, value, gate=nodes[0].gate)
    new.dtype, new.magnitude = nodes[0].dtype, nodes[0].magnitude
    return tape.note(value, new)


def looked_up(tape: Tape, value: Tensor, tokens: Tensor, before: int = 0) -> Tensor:
    """The entries of a constant table at tokens: the relevance of a token is the sum over its entries.

    `before`: as many dimensions of the table come before that of the tokens.
    """
    of_tokens = range(before, before + tokens.dim())
    others = [dim for dim in range(value.dim()) if dim not in of_tokens]
    movement = Movement(lambda part: part, lambda part: part.sum(others) if others else part)
    return tape.note(value, Node(MOVE, (tape.node(tokens),), value, movement))


@records("index.Tensor index_select.default")
def index(tape: Tape, func: Any, tensor: Tensor, *args: Any) -> Tensor:
    """Entries are chosen; of a constant table by tokens: a token's relevance is the sum of its entries'."""
    if tape.find(tensor) is not None:
        return by_index(tape, func, tensor, *args)
    value = func(tensor, *args)
    if func is aten.index_select.default:
        return looked_up(tape, value, args[1], args[0] % tensor.dim())
    *before, tokens = args[0]
    if tape.find(tokens) is not None and tokens.dtype != torch.bool and all(index is None for index in before):
        return looked_up(tape, value, tokens, len(before))
    advice = "Tokens are looked up along one dimension of a table, as in embedding(tokens, table)."
    return tape.refused(func, value, advice, *args)


def of_one_token(node: Node, vectors: Tensor) -> bool:
    """Whether each vector is that of one token: one-hot."""
    while node.row in (MOVE, PASS) and not (node.row is MOVE and node.call.one_hot):
        (source,) = node.sources
        if source is None or (node.row is MOVE and not node.call.ordered):
            return False
        node = source
    return node.row is MOVE and bool(((vectors != 0).sum(-1) == 1).all() & (vectors.sum(-1) == 1).all())


@records("scatter.value")
def one_hot(tape: Tape, func: Any, tensor: Tensor, dim: int, index: Tensor, number: Any) -> Tensor:
    """A number is written at tokens (one-hot): a token's relevance is that of its vector."""
    node = tape.find(index)
    if node is None or tape.find(tensor) is not None:
        return write_number(tape, func, tensor, dim, index, number)
    value = func(tensor, dim, index, number)

    def undo(part: Tensor) -> Tensor:  # of a vector that has one token, all entries are that token's
        return part.sum(dim, keepdim=True) if index.shape[dim] == 1 else part.gather(dim, index)

    one_hot = index.shape[dim] == 1 and dim % index.dim() == index.dim() - 1
    new = Node(MOVE, (node,), value, Movement(lambda part: part, undo, one_hot=one_hot))
    new.dtype = value.dtype if value.is_floating_point() else node.dtype
    return tape.note(value, new)


by_index, write_number = moving(by_gradient), writing(3)


@records("embedding.default")
def embedding(tape: Tape, func: Any, weight: Tensor, indices: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A lookup of tokens: a token gets the sum of its vector's relevance."""
    value = func(weight, indices, *args, **kwargs)
    node = tape.find(indices)
    if node is None:
        return tape.refused(func, value, "Its weight must not depend on the input.", weight)
    return tape.note(value, Node(EMBEDDING, (node,), value))


@records("_embedding_bag.default _embedding_bag_forward_only.default")
def embedding_bag(
    tape: Tape,
    func: Any,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    by_frequency: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample: Tensor | None = None,
    last: bool = False,
    padding: int = -1,
) -> Any:
    """Sums or means over the vectors of bags of tokens, without padding."""
    values = func(weight, indices, offsets, by_frequency, mode, sparse, per_sample, last, padding)
    if tape.find(indices) is None or mode > 1:
        tape.refused(func, values[0], "Only sums and means of token vectors have a rule.", weight, indices)
        return values
    vectors = tape.record(aten.embedding.default, (weight, indices), {})
    counted = (indices != padding).to(weight.dtype)
    if per_sample is not None:
        counted = counted * held(per_sample)
    places = torch.arange(len(indices), device=indices.device)
    bag = torch.searchsorted(offsets[:-1] if last else offsets, places, right=True) - 1
    if mode:
        size = counted.new_zeros(len(values[0])).index_add(0, bag, counted)
        counted = counted / size[bag].clamp(min=1)
    kept = tape.record(aten.mul.Tensor, (vectors, counted.unsqueeze(-1)), {})
    operation = Operation(
        lambda part, _: part.new_zeros(len(values[0]), part.shape[1]).index_add(0, bag, part),
        lambda factors, _, size: factors[bag],
    )
    tape.linear(func, kept, operation, None, None, values[0])
    return values


@records("_pack_padded_sequence.default")
def pack(tape: Tape, func: Any, padded: Tensor, lengths: Tensor, batch_first: bool) -> Any:
    """Packing: time steps of all examples, one after another, without padding."""
    value, sizes = func(padded, lengths, batch_first)
    node = tape.node(padded)

    def apply(part: Tensor) -> Tensor:
        return func(part, lengths, batch_first)[0]

    undo = by_gradient(lambda part: apply(part), padded, (), {})
    return tape.move(value, node, Movement(apply, undo)), sizes


@records("_pad_packed_sequence.default")
def unpack(
    tape: Tape, func: Any, packed: Tensor, sizes: Tensor, batch_first: bool, padding: float, length: int
) -> Any:
    """Unpacking: padding is added again."""
    value, lengths = func(packed, sizes, batch_first, padding, length)
    node = tape.node(packed)

    def apply(part: Tensor) -> Tensor:
        return func(part, sizes, batch_first, 0, length)[0]

    undo = by_gradient(lambda part: apply(part), packed, (), {})
    return tape.move(value, node, Movement(apply, undo), padding=padding == 0), lengths
