"""Relevance with a graph: a network runs once, to see what it does, and that is done again with gradients on.

A dispatch mode sees operations below autograd, where their results have no graph. So a run is only logged, with
what is done to parameters alone; then the calls are made again outside of any mode, each on the new versions of
its tensors. What overwrites a tensor gives a new one there, and what shared its memory is looked up in that.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from rnnx_lightning.explain.isolation import random_state
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.overwriting import aten, laid_out, overwritten, written
from rnnx_lightning.explain.refusals import UnexplainableError
from rnnx_lightning.explain.tape import Tape

T = TypeVar("T")
WITHOUT = "Leave it out, or explain without create_graph."


class Call(NamedTuple):
    """One operation, with the tensors of the logged run, and the modules that it ran in."""

    func: Any
    args: Any
    kwargs: Any
    result: Any
    place: tuple[nn.Module, ...]


class _Log(TorchDispatchMode):
    """Writes down all operations, and what tensors from outside held before they were overwritten.

    Args:
        path: where in the network we are.
        parameters: memory that may not be overwritten.
        before: by memory, what was in it.
    """

    def __init__(self, path: ModulePath, parameters: set[int], before: dict[int, Tensor]) -> None:
        super().__init__()
        self.calls: deque[Call] = deque()
        self._path, self._parameters, self._before = path, parameters, before
        self._outside: set[int] = set()
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and note it."""
        kwargs = kwargs or {}
        self._outside |= {memory_of(t) for t in _tensors((args, kwargs))} - self._made
        for tensor in _written(func, args, kwargs):
            self._save(tensor)
        result = func(*args, **kwargs)
        self._made |= {memory_of(t) for t in _tensors(result)} - self._outside
        self.calls.append(Call(func, args, kwargs, result, self._path.place))
        return result

    def _save(self, tensor: Tensor) -> None:
        memory = memory_of(tensor)
        if memory in self._parameters:
            raise UnexplainableError(f"The network overwrites one of its parameters{self._path}. {WITHOUT}")
        if memory in self._outside and memory not in self._before:
            size = tensor.untyped_storage().nbytes() // tensor.element_size()
            self._before[memory] = tensor.detach().as_strided((size,), (1,), 0).clone()


class Replay:
    """Runs functions in such a way that the values on a tape have a graph.

    Args:
        tape: what is written.
        path: where in the network we are.
        parameters: by which relevance will be differentiated.
    """

    def __init__(self, tape: Tape, path: ModulePath, parameters: Iterable[Tensor]) -> None:
        self._tape, self._path = tape, path
        self._parameters = {memory_of(p) for p in parameters}
        self._new: dict[
            int, tuple[Tensor, Tensor, int]
        ] = {}  # tensor of the logged run to its new version, and age
        self._first: dict[int, Tensor] = {}  # by memory, the first tensor that had it
        self._before: dict[int, Tensor] = {}
        self._memory: dict[int, Tensor] = {}  # by memory that was overwritten, what is in it
        self._geometry: dict[int, Any] = {}  # how that lies there
        self._age: dict[int, int] = {}  # how often it was overwritten
        self._views: dict[tuple[Any, ...], Any] = {}

    def stand_in(self, tensor: Tensor) -> Tensor:
        """The new version of an input; the network may overwrite the input itself."""
        new = tensor.clone()
        self._put(tensor, new)
        self._before[memory_of(tensor)] = new  # it is known; there is no need to save it
        return new

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """What a function gives, with a graph.

        Args:
            function: it is called once, and what it does is done again.
            args: its arguments.

        Raises:
            UnexplainableError: it does something else the second time.
        """
        log = _Log(self._path, self._parameters, self._before)
        device = next((t.device for t in _tensors(args)), torch.device("cpu"))
        with random_state(device), torch.no_grad(), log:
            result = function(*args)
        place = self._path.place
        while log.calls:
            self._repeat(log.calls.popleft())
        self._path.place = place
        for outputs in self._path.outputs.values():
            outputs[:] = [self._current(output) for output in outputs]
        return tree_map_only(Tensor, self._checked, result)

    # -- one call --------------------------------------------------------------------------------------------

    def _repeat(self, call: Call) -> None:
        if not _tensors(call.result):
            return  # a number, on which the network decided what to do
        self._path.place = call.place
        targets = _written(call.func, call.args, call.kwargs)
        if not targets:
            args, kwargs = tree_map_only(Tensor, self._current, (call.args, call.kwargs))
            self._note(call.result, self._again(call.func, args, kwargs))
            return
        current = {id(t): self._current(t) for t in _tensors((call.args, call.kwargs))}
        known = any(self._tape.find(t) is not None for t in current.values())
        if not known:  # it is done to copies
            current |= {id(t): current[id(t)].clone() for t in targets}
        args, kwargs = tree_map_only(Tensor, lambda t: current[id(t)], (call.args, call.kwargs))
        if known:
            current[id(targets[0])] = overwritten(self._tape, call.func, args, kwargs)
        else:
            self._note(call.result, call.func(*args, **kwargs))
        for tensor in targets:
            self._write(tensor, current[id(tensor)])

    def _again(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Record a call. A view of a constant is made once: parts of weights are cached by the tensor."""
        if not func.is_view or self._tape.find(args[0]) is not None:
            return self._tape.record(func, args, kwargs)
        key = (func, id(args[0]), repr(args[1:]), repr(kwargs))
        if key not in self._views:
            self._views[key] = args, func(*args, **kwargs)
        return self._views[key][1]

    def _note(self, result: Any, new: Any) -> None:
        for tensor, version in zip(tree_leaves(result), tree_leaves(new), strict=True):
            if isinstance(tensor, Tensor):
                self._put(tensor, version)

    def _put(self, tensor: Tensor, new: Tensor) -> None:
        memory = memory_of(tensor)
        self._first.setdefault(memory, tensor)
        self._new[id(tensor)] = tensor, new, self._age.get(memory, 0)

    def _checked(self, tensor: Tensor) -> Tensor:
        """The new version of a result, which must be equal."""
        new = self._current(tensor)
        if not torch.allclose(new, tensor, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise UnexplainableError(
                "The network's output is another one when its operations are done a second time: it changes "
                f"tensors in a way that cannot be seen (`tensor.data = ...`, NumPy, an extension). {WITHOUT}"
            )
        return new

    # -- memory that is overwritten --------------------------------------------------------------------------

    def _current(self, tensor: Tensor) -> Tensor:
        """The newest version of a tensor of the logged run; what came from outside is its own."""
        memory = memory_of(tensor)
        age = self._age.get(memory, 0)
        if id(tensor) in self._new and self._new[id(tensor)][2] == age:
            return self._new[id(tensor)][1]
        if age or memory in self._before:
            whole = self._whole(memory)
            if whole.dtype != tensor.dtype:
                raise UnexplainableError(
                    f"A tensor of type {whole.dtype} is overwritten as {tensor.dtype}. {WITHOUT}"
                )
            new = self._tape.record(aten.as_strided.default, (whole, *self._inside(whole, tensor)), {})
        else:
            new = tensor
        self._new[id(tensor)] = tensor, new, age
        return new

    def _whole(self, memory: int) -> Tensor:
        """What is in some memory, laid out as there."""
        if memory not in self._memory:
            first = self._before[memory] if memory in self._before else self._first[memory]
            self._memory[memory] = first if memory in self._before else self._new[id(first)][1]
            self._geometry[memory] = _geometry(first)
        return laid_out(self._tape, self._memory[memory], self._geometry[memory][1])

    def _inside(self, whole: Tensor, tensor: Tensor) -> Any:
        """Where a tensor lies in all that has its memory."""
        shape, stride, offset = _geometry(tensor)
        return shape, stride, offset - self._geometry[memory_of(tensor)][2] + whole.storage_offset()

    def _write(self, tensor: Tensor, value: Tensor) -> None:
        """Let a tensor be another one, with all that shares its memory."""
        memory = memory_of(tensor)
        whole = self._whole(memory)
        alone = _geometry(tensor) == self._geometry[memory]
        self._memory[memory] = value if alone else written(self._tape, whole, value, *self._inside(whole, tensor))
        self._age[memory] = self._age.get(memory, 0) + 1
        self._put(tensor, value)


def memory_of(tensor: Tensor) -> int:
    """Which memory a tensor has."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)


def _geometry(tensor: Tensor) -> Any:
    return tensor.shape, tensor.stride(), tensor.storage_offset()


def _tensors(values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation overwrites."""
    if not func._schema.is_mutable:
        return []
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    marked = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return _tensors([named[name] for name in marked if name in named])
