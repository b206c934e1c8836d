"""Explain independently of the surrounding context, and restore everything afterwards."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def isolated(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Enable gradients, disable autocast and compilation, and restore all state at the end.

    Also works inside `torch.no_grad`, `torch.inference_mode` and `torch.autocast`; the explanation is computed in
    the dtypes of model and input.

    Args:
        model: the explained network.
        device: the device of the input.
    """
    # The single operations of compiled code could not be seen.
    stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        random_state(device),
        stance,
        kept_state(model),
    ):
        yield


def random_state(device: torch.device) -> AbstractContextManager[None]:
    """Restore the random state of the CPU and of a device at the end."""
    return (
        torch.random.fork_rng([])
        if device.type == "cpu"
        else torch.random.fork_rng([device], device_type=device.type)
    )


@contextmanager
def kept_state(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass changes on a model: buffers, attributes, what lists and dicts hold."""
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    attributes = [(module, {k: _copied(v) for k, v in module.__dict__.items()}) for module in modules]
    tensors = {id(t): t for t in model.buffers()}
    tensors |= {
        id(v): v
        for _, kept in attributes
        for v in kept.values()
        if isinstance(v, Tensor) and not isinstance(v, nn.Parameter)
    }
    before = [(tensor, tensor.data, tensor.detach().clone()) for tensor in tensors.values()]
    try:
        yield
    finally:
        for module, kept in attributes:
            for name in [name for name in module.__dict__ if name not in kept]:
                del module.__dict__[name]
            for name, value in kept.items():
                if module.__dict__.get(name) is not value:
                    module.__dict__[name] = value
        with torch.no_grad():
            for tensor, data, value in before:
                if tensor.data_ptr() != data.data_ptr():
                    tensor.data = data
                if not torch.equal(tensor, value):  # an unneeded write would break graphs that use the tensor
                    tensor.copy_(value)


def _copied(value: Any) -> Any:
    """Lists, dicts and sets may be changed in place."""
    return value.copy() if type(value) in (list, dict, set) else value
