"""Running a network under a tape."""

from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import nn

from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.inputs import Inputs, network_of, tensors_of
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations import ADVICE, HARMLESS, TABLE
from rnnx_lightning.explain.operations.recurrent import RecurrentModules, has_recurrent_modules
from rnnx_lightning.explain.tape import Tape


def recorded(
    model: nn.Module, x: Inputs, composite: Composite, path: AbstractContextManager[ModulePath], create_graph: bool
) -> tuple[Tape, list[Node], Any]:
    """Run a network once.

    Args:
        model: it is called with `x`.
        x: the inputs.
        composite: which operation gets which rule.
        path: to be entered while the network runs.
        create_graph: values on the tape have a graph.

    Returns:
        The tape, the inputs' nodes, and the network's output.
    """
    with path as place:
        tape = Tape(composite, place, TABLE, HARMLESS, ADVICE)
        parameter = next((p for p in network_of(model).parameters() if p.is_floating_point()), None)
        dtype = torch.get_default_dtype() if parameter is None else parameter.dtype
        leaves = [tape.leaf(t, t.dtype if t.is_floating_point() else dtype) for t in tensors_of(x)]
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(_taken_apart())
            if has_recurrent_modules(network_of(model)):
                stack.enter_context(RecurrentModules(None if create_graph else tape))
            stack.enter_context(tape)
            output = model(x)
    return tape, leaves, output


class _taken_apart:  # noqa: N801 - used as a function
    """Attention in plain operations."""

    def __enter__(self) -> None:
        self._kernel = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        self._kernel.__enter__()
        self._fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(self, *error: Any) -> None:
        torch.backends.mha.set_fastpath_enabled(self._fast)
        self._kernel.__exit__(*error)
