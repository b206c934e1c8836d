"""A place to explain in, whatever surrounds it, that leaves everything as it was."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

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
    # Compiled code would not show its operations one by one.
    stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        torch.random.fork_rng([])
        if device.type == "cpu"
        else torch.random.fork_rng([device], device_type=device.type),
        stance,
    ):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
