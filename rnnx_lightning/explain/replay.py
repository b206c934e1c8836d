"""Relevance with an autograd graph: log the operations of a run, then repeat them with gradients on.

A dispatch mode sees operations below autograd, where results have no graph. So the first run is only logged,
including operations on parameters only. Then the logged calls are repeated outside of any mode, each on the new
versions of its tensors. A repeated in-place operation gives a new tensor; tensors that shared memory with the old
one are looked up in the new one.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils._pytree import tree_leaves, tree_map_only

from rnnx_lightning.explain.isolation import random_state
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.notes import Mode
from rnnx_lightning.explain.out_of_sight import MAKES, unseen
from rnnx_lightning.explain.overwriting import (
    aten,
    laid_out,
    overwritten,
    run,
    tensors_in,
    written,
    written_by,
)
from rnnx_lightning.explain.refusals import HIGHER_ORDER, IN_INFERENCE_MODE, UnexplainableError
from rnnx_lightning.explain.storage import layout_of, memory_of
from rnnx_lightning.explain.tape import Tape

T = TypeVar("T")
WITHOUT = "Remove this from the network, or explain without create_graph."


class Call(NamedTuple):
    """One logged operation, with the tensors of the first run, and the modules it ran in."""

    func: Any
    args: Any
    kwargs: Any
    result: Any
    place: tuple[nn.Module, ...]


class _Log(Mode):
    """Logs all operations, and the values of tensors from outside before they are overwritten.

    Args:
        path: the running module.
        parameters: memory that must not be overwritten.
        before: receives the previous values, by memory.
    """

    def __init__(self, path: ModulePath, parameters: set[int], before: dict[int, Tensor]) -> None:
        super().__init__()
        self.calls: deque[Call] = deque()
        self._path, self._parameters, self._before = path, parameters, before
        self.written: set[int] = set()  # by memory
        self._outside: set[int] = set()
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and log one operation."""
        if isinstance(func, HigherOrderOperator):
            raise UnexplainableError(HIGHER_ORDER.format(func.name(), self._path))
        if torch.is_inference_mode_enabled():
            raise UnexplainableError(IN_INFERENCE_MODE.format(self._path))
        return run(self._logged, func, args, kwargs or {})

    def _logged(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func.overloadpacket is aten.set_:
            raise UnexplainableError(f"The network gives a tensor other memory by `set_`{self._path}. {WITHOUT}")
        self._outside |= {memory_of(t) for t in tensors_in((args, kwargs))} - self._made
        for tensor in written_by(func, args, kwargs):
            self._save(tensor)
        result = func(*args, **kwargs)
        self._made |= {memory_of(t) for t in tensors_in(result)} - self._outside
        self.calls.append(Call(func, args, kwargs, result, self._path.place))
        return result

    def _save(self, tensor: Tensor) -> None:
        memory = memory_of(tensor)
        self.written.add(memory)
        if memory in self._parameters:
            raise UnexplainableError(f"The network overwrites one of its parameters{self._path}. {WITHOUT}")
        if memory in self._outside and memory not in self._before:
            size = tensor.untyped_storage().nbytes() // tensor.element_size()
            self._before[memory] = tensor.detach().as_strided((size,), (1,), 0).clone()


class Replay:
    """Runs functions so that the values on a tape have an autograd graph.

    Args:
        tape: the tape.
        path: the running module.
        parameters: the tensors that relevance will be differentiated with respect to.
    """

    def __init__(self, tape: Tape, path: ModulePath, parameters: Iterable[Tensor]) -> None:
        self._tape, self._path = tape, path
        self._parameters = {memory_of(p) for p in parameters}
        self._new: dict[
            int, tuple[Tensor, Tensor, int]
        ] = {}  # by id, a tensor of the logged run, its new version, and the age of its memory then
        self._first: dict[int, Tensor] = {}  # by memory, the first tensor that used it
        self._before: dict[int, Tensor] = {}
        self._memory: dict[int, Tensor] = {}  # by overwritten memory, its current content
        self._geometry: dict[int, Any] = {}  # by overwritten memory, the layout of that content
        self._age: dict[int, int] = {}  # by memory, how often it was overwritten
        self._views: dict[tuple[Any, ...], Any] = {}
        self._written: set[int] = set()  # by memory: some operation of the logged run has written there

    def stand_in(self, tensor: Tensor) -> Tensor:
        """A new version of an input, because the network may overwrite the input itself."""
        new = tensor.clone()
        self._put(tensor, new)
        self._before[memory_of(tensor)] = new  # its value is known, and need not be saved
        return new

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """The result of a function, with an autograd graph.

        Args:
            function: called once; its operations are repeated.
            args: its arguments.

        Raises:
            UnexplainableError: the repetition gives a different result.
        """
        log = _Log(self._path, self._parameters, self._before)
        device = next((t.device for t in tensors_in(args)), torch.device("cpu"))
        with random_state(device), torch.no_grad(), log:
            result = function(*args)
        place, self._written = self._path.place, log.written
        while log.calls:
            self._repeat(log.calls.popleft())
        self._path.place = place
        for outputs in self._path.outputs.values():
            outputs[:] = [self._current(output) for output in outputs]
        return tree_map_only(Tensor, self._checked, result)

    # -- one call --------------------------------------------------------------------------------------------

    def _repeat(self, call: Call) -> None:
        targets = written_by(call.func, call.args, call.kwargs) if self._tape.overwrites(call.func) else []
        if not targets and not tensors_in(call.result):
            return  # the result is a Python number, used for control flow
        self._path.place = call.place
        if call.func in MAKES and self._is_given(call.result):
            self._put(call.result, call.result)
            return
        if not targets:
            args, kwargs = tree_map_only(Tensor, self._current, (call.args, call.kwargs))
            self._note(call.result, self._again(call.func, args, kwargs))
            return
        current = {id(t): self._current(t) for t in tensors_in((call.args, call.kwargs))}
        args, kwargs = tree_map_only(Tensor, lambda t: current[id(t)], (call.args, call.kwargs))
        known = any(
            self._tape.find(t) is not None or unseen(self._tape, call.func, args, kwargs, t)
            for t in current.values()
        )
        if not known:  # work on copies
            current |= {id(t): current[id(t)].clone() for t in targets}
            args, kwargs = tree_map_only(Tensor, lambda t: current[id(t)], (call.args, call.kwargs))
        if known:
            current[id(targets[0])] = overwritten(self._tape, call.func, args, kwargs)
        else:
            self._note(call.result, call.func(*args, **kwargs))
        for tensor in targets:
            if torch.Tag.inplace_view in call.func.tags:  # its shape changes, and no memory
                self._put(tensor, current[id(tensor)])
            else:
                self._write(tensor, current[id(tensor)])

    def _is_given(self, made: Any) -> bool:
        """Whether what no operation has written are whole numbers, as the lengths of pad_packed_sequence."""
        if not isinstance(made, Tensor) or made.is_floating_point() or made.is_complex():
            return False
        return memory_of(made) not in self._written

    def _again(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Record a call. A view of a constant is made only once, because parts of weights are cached by tensor."""
        if not func.is_view or self._tape.find(args[0]) is not None:
            return self._tape.record(func, args, kwargs)
        key = (func, id(args[0]), repr(args[1:]), repr(kwargs))
        if key not in self._views:
            self._views[key] = args, func(*args, **kwargs)
        return self._views[key][1]

    def _note(self, result: Any, new: Any) -> None:
        for tensor, version in zip(tree_leaves(result), tree_leaves(new), strict=True):
            if isinstance(tensor, Tensor):
                same = tensor.layout is torch.strided and tensor.shape == version.shape
                if same and tensor.is_contiguous() and not version.is_contiguous():  # a view may need it in order
                    version = laid_out(self._tape, version, tensor.stride())
                self._put(tensor, version)

    def _put(self, tensor: Tensor, new: Tensor) -> None:
        memory = memory_of(tensor)
        self._first.setdefault(memory, tensor)
        self._new[id(tensor)] = tensor, new, self._age.get(memory, 0)

    def _checked(self, tensor: Tensor) -> Tensor:
        """The new version of a result, after checking that it has the same values."""
        new = self._current(tensor)
        if not _equal(new, tensor):
            raise UnexplainableError(
                "The network's output differs when its operations are repeated: it changes tensors in a way that "
                f"cannot be seen (`tensor.data = ...`, NumPy, an extension). {WITHOUT}"
            )
        return new

    # -- memory that is overwritten --------------------------------------------------------------------------

    def _current(self, tensor: Tensor) -> Tensor:
        """The newest version of a tensor of the logged run; what came from outside is its own."""
        memory = memory_of(tensor)
        age = self._age.get(memory, 0)
        if id(tensor) in self._new and self._new[id(tensor)][2] == age:
            return self._new[id(tensor)][1]
        if age or memory in self._before or memory in self._first:  # the last: of a tensor made out of sight
            whole = self._whole(memory)
            new = self._tape.record(aten.as_strided.default, (whole, *self._inside(whole, tensor)), {})
        else:
            new = tensor
        self._new[id(tensor)] = tensor, new, age
        return new

    def _whole(self, memory: int) -> Tensor:
        """The content of some memory, in its layout."""
        if memory not in self._memory:
            first = self._before[memory] if memory in self._before else self._first[memory]
            self._memory[memory] = first if memory in self._before else self._new[id(first)][1]
            self._geometry[memory] = layout_of(first)
            if first.dim() != self._memory[memory].dim():  # of the logged run only the last shape is known
                raise UnexplainableError(
                    "A tensor is overwritten, and then its shape changes in place (squeeze_, unsqueeze_, as in "
                    f"torch.quantile). {WITHOUT}"
                )
        return laid_out(self._tape, self._memory[memory], self._geometry[memory][1])

    def _inside(self, whole: Tensor, tensor: Tensor) -> Any:
        """Shape, strides and offset of a tensor within its memory."""
        if whole.dtype != tensor.dtype:
            raise UnexplainableError(f"A tensor of type {whole.dtype} is overwritten as {tensor.dtype}. {WITHOUT}")
        shape, stride, offset = layout_of(tensor)
        return shape, stride, offset - self._geometry[memory_of(tensor)][2] + whole.storage_offset()

    def _write(self, tensor: Tensor, value: Tensor) -> None:
        """Write a new value to a tensor, and so to all tensors that share its memory."""
        memory = memory_of(tensor)
        whole = self._whole(memory)
        whole_memory = layout_of(tensor) == self._geometry[memory]
        self._memory[memory] = (
            value if whole_memory else written(self._tape, whole, value, *self._inside(whole, tensor))
        )
        self._age[memory] = self._age.get(memory, 0) + 1
        self._put(tensor, value)


def _equal(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors have the same values, up to errors of rounding, which are large in half precision."""
    rounding = 10 * torch.finfo(two.dtype).eps if two.is_floating_point() and two.numel() else 0.0
    greatest = float(two.detach().abs().amax()) if rounding else 0.0
    return torch.allclose(one, two, rtol=max(1e-3, rounding), atol=max(1e-5, rounding * greatest), equal_nan=True)
