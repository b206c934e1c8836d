"""Views that are read twice: the `x[:, t]` of `x[:, t] * torch.sigmoid(x[:, t])` is one value, not two."""

from typing import TYPE_CHECKING, Any
from weakref import ref

from rnnx_lightning.explain.pieces import read_back

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape


def viewed(tape: "Tape", func: Any, args: Any, kwargs: Any, result: Any) -> None:
    """Note what a view shows: a part of a joined tensor, or the same as a view that was made before.

    Each view keeps a node of its own, as it may be the output of a layer.
    """
    tensor = args[0]
    read_back(tape, tensor, result)
    if (node := tape.find(tensor)) is None:
        return
    node = node.first
    place = (tensor.stride(), tensor.storage_offset()) if func.__name__ == "as_strided.default" else ()
    key = (func, f"{args[1:]}{kwargs}", place)
    made = [tape.find(view) for view in (result if isinstance(result, list | tuple) else (result,))]
    if node.views is None:
        node.views = {}
    first = node.views.setdefault(key, [None] * len(made))
    for number, each in enumerate(made):
        if each is not None:
            earlier = first[number]
            each.original = None if earlier is None else earlier()
            if each.original is None:
                first[number] = ref(each)
