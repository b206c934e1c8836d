"""Runs a network while a tape is recorded."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.inputs import Inputs, network_of, tensors_of
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations import ADVICE, HARMLESS, SCALES, TABLE
from rnnx_lightning.explain.operations.recurrent import RECURRENT, RecurrentModules
from rnnx_lightning.explain.process_settings import unfused_attention
from rnnx_lightning.explain.refusals import NumPyWarning, warn
from rnnx_lightning.explain.replay import Replay
from rnnx_lightning.explain.squashes import without_squash
from rnnx_lightning.explain.tape import Tape

TO_ARRAYS: set[Any] = {Tensor.numpy, Tensor.__array__, Tensor.__dlpack__}
TO_NUMBERS: set[Any] = {Tensor.tolist, torch.tensor}  # the last, of a list of tensors
SET_DATA: Any = Tensor.data.__set__  # type: ignore[attr-defined]
DEFAULT = Tensor.__torch_function__.__func__  # type: ignore[attr-defined]
LOSES = TO_ARRAYS | TO_NUMBERS
SPECIAL = LOSES | RECURRENT | {SET_DATA, Tensor.__deepcopy__}

LOST = (
    "The network turns values that depend on the input into numbers of Python, or arrays of NumPy or another "
    "package. What it computes from them is a constant for LRP and gets no relevance: write it in torch. If "
    "nothing comes back, as from plots and logs, ignore this."
)


class Calls(RecurrentModules):
    """Also sees `tensor.data = value` and deep copies, and warns of values that go to NumPy."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, or what replaces it."""
        if types and all(map(_is_plain, types)):
            with torch._C.DisableTorchFunctionSubclass():  # else the result is another tensor than was recorded
                return self.__torch_function__(func, (), args, kwargs)
        if func not in SPECIAL:
            return func(*args, **(kwargs or {}))
        if func == Tensor.__deepcopy__ and not args[0].requires_grad:
            return args[1].setdefault(id(args[0]), args[0].clone())
        if self._tape is not None:
            if func == SET_DATA:
                func(*args)
                if self._tape.find(args[0]) is not (node := self._tape.find(args[1])):
                    self._tape.mark(args[0], node)
                return None
            if func in LOSES and self._loses(func, [*args, *(kwargs or {}).values()]):
                warn(LOST, NumPyWarning)
        return super().__torch_function__(func, types, args, kwargs)

    def _loses(self, func: Any, values: list[Any]) -> bool:
        """Whether a function takes values that get relevance out of sight."""
        if self._tape is None or (func is torch.tensor and isinstance(values[0], Tensor)):
            return False
        explained = filter(self._tape.is_explained, tree_leaves(values))
        return any(func in TO_ARRAYS or tensor.is_floating_point() for tensor in explained)


def _is_plain(kind: Any) -> bool:
    """Whether a type of tensors computes as all tensors do."""
    return getattr(kind.__torch_function__, "__func__", None) is DEFAULT


class Recording(NamedTuple):
    """One recorded run of a network.

    Attributes:
        tape: the operations on the inputs.
        inputs: the nodes of the inputs.
        logits: the network's output, before a softmax or sigmoid at its end.
        value: (B,) the explained values.
    """

    tape: Tape
    inputs: list[Node]
    logits: Any
    value: Tensor


def recorded(
    model: nn.Module,
    x: Inputs,
    composite: Composite,
    path: AbstractContextManager[ModulePath],
    choose: Callable[[Any], tuple[Any, Tensor]],
    create_graph: bool,
    steps: int | None = None,
) -> Recording:
    """Run a network once and record it.

    Args:
        model: called with `x`.
        x: the inputs.
        composite: chooses the rule of each operation.
        path: a context that is entered while the network runs.
        choose: maps the network's output to its logits and the explained values.
        create_graph: keep an autograd graph of the values on the tape.
        steps: see `Tape`.
    """
    network = network_of(model)
    with path as place, ExitStack() as stack:
        tape = Tape(composite, place, TABLE, HARMLESS, SCALES, ADVICE, steps)
        replay = Replay(tape, place, network.parameters()) if create_graph else None
        parameter = next((p for p in network.parameters() if p.is_floating_point()), None)
        dtype = torch.get_default_dtype() if parameter is None else parameter.dtype
        inputs = [
            tape.leaf(t if replay is None else replay.stand_in(t), t.dtype if t.is_floating_point() else dtype)
            for t in tensors_of(x)
        ]
        stack.enter_context(unfused_attention())
        stack.enter_context(Calls(tape if replay is None else None, composite.sums == "closed"))
        try:
            if replay is None:
                with torch.no_grad(), tape:
                    logits, value = choose(without_squash(tape, model(x)))
            else:
                logits, value = replay.run(choose, without_squash(tape, replay.run(model, x)))
        except RuntimeError as error:
            if tape.raised is None:
                raise
            raise tape.raised from error  # TorchScript loses what is raised inside of it
    return Recording(tape, inputs, logits, value)
