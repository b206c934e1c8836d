"""A place to explain in, whatever surrounds it, that leaves everything as it was."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


@contextmanager
def isolated(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Gradients on, autocast and compilation off; buffers and random state are put back at the end.

    Works inside `torch.no_grad`, `torch.inference_mode` and `torch.autocast`, where the explanation is computed
    in the types of model and input.

    Args:
        model: what is explained.
        device: where.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(torch.random.fork_rng(devices))
        if "torch._dynamo" in sys.modules:
            # Compiled code would not show its operations one by one.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
