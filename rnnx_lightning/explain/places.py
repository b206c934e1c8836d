"""Follows tokens through a network: which entry of the input an entry of another tensor of whole numbers is.

The tokens of the input are numbered twice, upwards and downwards. Every operation on tokens is applied to both
numberings, too. If each entry of the result has the same place in both, the operation has moved entries, whatever
they are.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

NOTE = "_rnnx_places"  # the attribute of a tensor that holds its places, or the name of a function as a reason
FIRST = 2**30  # numbers start here, above all tokens
ONE_BY_ONE = {
    "add", "sub", "mul", "remainder", "fmod", "floor_divide", "clamp", "clamp_min", "clamp_max", "bitwise_and",
    "rsub", "__add__", "__sub__", "__mul__", "__mod__", "__floordiv__", "__and__", "__radd__", "__rmul__",
    "__rsub__",
}  # fmt: skip


class Places(NamedTuple):
    """The numbers of the entries of a tensor; constants keep their value.

    Attributes:
        up: `FIRST` + the position in all tokens of the input, one after another.
        down: the same, counted from the last token.
        tokens: number of tokens in the input.
    """

    up: Tensor
    down: Tensor
    tokens: int

    @property
    def positions(self) -> Tensor:
        """The position in all tokens of the input; -1 for constants."""
        return torch.where(self.up >= FIRST, self.up - FIRST, -1)

    @property
    def consistent(self) -> Tensor:
        """Where both numbers say the same."""
        moved = self.up >= FIRST
        return torch.where(moved, self.up + self.down == 2 * FIRST + self.tokens - 1, self.up == self.down)


def number(tokens: Sequence[Tensor]) -> None:
    """Note the places of the tokens of the input."""
    first, count = FIRST, sum(part.numel() for part in tokens)
    for part in tokens:
        up = torch.arange(first, first + part.numel(), device=part.device).view(part.shape)
        setattr(part, NOTE, Places(up, 2 * FIRST + count - 1 - up, count))
        first += part.numel()


def places_of(tensor: Any) -> Places | str | None:
    """What is known of a tensor's entries: places, the function that they went through, or None for constants."""
    places: Places | str | None = getattr(tensor, NOTE, None)
    return places


def tensors_in(arguments: Any) -> list[Tensor]:
    """All tensors among arguments."""
    return [part for part in tree_flatten(arguments)[0] if isinstance(part, Tensor)]


def followed(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a function that gets tokens, and note the places of its results."""
    name = getattr(func, "__name__", str(func))
    writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    known = [note for note in map(places_of, tensors_in((args, kwargs))) if note is not None]
    numbers = _renumbered(func, args, kwargs, writes) if writes else []  # before it writes
    value = func(*args, **kwargs)
    results = tensors_in([args[0] if writes else value])
    if name.endswith("_like") or name.startswith("new_") or not any(map(_is_whole, results)):
        return value
    numbers = numbers or _renumbered(func, args, kwargs, writes)
    for n, result in enumerate(results):
        if _is_whole(result):
            setattr(result, NOTE, _note(name, known, result, *(ways[n : n + 1] for ways in numbers)))
    return value


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor can hold tokens."""
    return not (tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex())


def _renumbered(func: Callable[..., Any], args: Any, kwargs: Any, writes: bool) -> list[list[Tensor]]:
    """The numbers of a function's results, upwards and downwards; nothing if it fails for numbers."""
    if _makes_as_many(func, args, kwargs):
        return [[], []]

    def run(way: str) -> list[Tensor]:
        def own(part: Any) -> Any:
            places = places_of(part)
            part = getattr(places, way) if isinstance(places, Places) else part
            return part.clone() if writes and isinstance(part, Tensor) else part

        arguments, options = tree_map(own, args), tree_map(own, kwargs)
        try:
            result = func(*arguments, **options)
        except (RuntimeError, IndexError, TypeError, ValueError):
            return []
        return tensors_in([arguments[0] if writes else result])

    return [run("up"), run("down")]


def _makes_as_many(func: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    """Whether a function makes as many entries as tokens say: of our numbers, these would fill the memory."""
    name = getattr(func, "__name__", "")
    if name == "repeat_interleave":
        return places_of(args[1] if len(args) > 1 else kwargs.get("repeats", args[0])) is not None
    return name in ("bincount", "one_hot")


def _note(
    name: str, known: list[Places | str], result: Tensor, up: list[Tensor], down: list[Tensor]
) -> Places | str | None:
    """What is known of a result: its places, that it is a constant, or why neither is known."""
    (count, *_) = [note.tokens for note in known if isinstance(note, Places)] or [0]
    reasons = [note for note in known if isinstance(note, str)]
    if reasons:
        return reasons[0]
    if up and down and up[0].shape == down[0].shape == result.shape:
        places = Places(up[0], down[0], count)
        moved = places.up >= FIRST
        if bool((places.consistent & (moved | (places.up == result))).all()):
            return places if bool(moved.any()) else None
    (one, *others) = known
    one_by_one = name in ONE_BY_ONE or name.rstrip("_") in ONE_BY_ONE
    same_entries = not others and isinstance(one, Places) and one.up.shape == result.shape
    return one if one_by_one and same_entries else name
