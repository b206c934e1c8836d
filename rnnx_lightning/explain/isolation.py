"""Explain independently of the surrounding context, and restore everything afterwards."""

import sys
from collections import deque
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
    """Put back what a forward pass changes on a model: buffers, attributes, what lists and dicts hold.

    Containers are filled again in place: another module may hold the same one.
    """
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    containers: dict[int, tuple[Any, Any]] = {}  # what may be changed in place, and a copy
    tensors = {id(t): t for t in model.buffers() if t.layout is torch.strided}
    for module in modules:
        containers[id(module.__dict__)] = module.__dict__, dict(module.__dict__)
        for name, value in module.__dict__.items():
            _gather(value, containers, tensors if name not in ("_parameters", "_modules") else {})
    before = [(tensor, tensor.data, tensor.detach().clone()) for tensor in tensors.values()]
    try:
        yield
    finally:
        for container, copy in containers.values():
            _put_back(container, copy)
        with torch.no_grad():
            for tensor, data, value in before:
                if tensor.data_ptr() != data.data_ptr():
                    tensor.data = data
                if not torch.equal(tensor, value):  # an unneeded write would break graphs that use the tensor
                    tensor.copy_(value)


def _gather(value: Any, containers: dict[int, tuple[Any, Any]], tensors: dict[int, Tensor]) -> None:
    """Find the containers and tensors in a value; does not recurse, as containers may hold themselves."""
    ahead = [value]
    while ahead:
        value = ahead.pop()
        if isinstance(value, Tensor):
            if not isinstance(value, nn.Parameter) and value.layout is torch.strided:
                tensors[id(value)] = value
        elif isinstance(value, tuple):
            ahead += value
        elif isinstance(value, list | dict | set | deque) and id(value) not in containers:
            containers[id(value)] = value, value.copy()
            ahead += value.values() if isinstance(value, dict) else value


def _put_back(container: Any, copy: Any) -> None:
    """Let a container hold what it held, if it holds something else."""
    if isinstance(container, dict):
        same = list(container) == list(copy) and all(container[key] is value for key, value in copy.items())
    elif isinstance(container, set):
        same = container == copy
    else:
        same = len(container) == len(copy) and all(a is b for a, b in zip(container, copy, strict=True))
    if not same:
        container.clear()
        if isinstance(container, dict | set):
            container.update(copy)
        else:
            container.extend(copy)
