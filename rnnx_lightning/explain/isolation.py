"""Explain independently of the surrounding context, and restore everything afterwards."""

import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.cudnn import DifferentiableLayers
from rnnx_lightning.explain.norm_gradients import right_gradients_of_norms
from rnnx_lightning.explain.process_settings import full_precision, uncompiled, without_checkpoints
from rnnx_lightning.explain.refusals import HIGHER_ORDER, UnexplainableError


@contextmanager
def isolated(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Enable gradients, disable autocast and compilation, and restore all state at the end.

    Also works inside `torch.no_grad`, `torch.inference_mode` and `torch.autocast`; the explanation is computed in
    the dtypes of model and input, see also `full_precision`.

    Args:
        model: the explained network.
        device: the device of the input.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        full_precision(),
        DifferentiableLayers() if device.type == "cuda" else nullcontext(),
        right_gradients_of_norms(model),
        without_checkpoints(),
        random_state(device),
        uncompiled(),
        kept_state(model),
    ):
        try:
            yield
        except Exception as error:
            if _runs_a_part_as_a_whole(error):
                raise UnexplainableError(HIGHER_ORDER.format("cond, scan or the like", "")) from error
            raise


def _runs_a_part_as_a_whole(error: Exception) -> bool:
    """Whether an error is torch's own, within one of its functions that take functions, such as torch.cond."""
    modules = [frame.f_globals.get("__name__") or "" for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = any(module.startswith(("torch._higher_order_ops", "torch._dynamo")) for module in modules)
    inside &= "torch._dynamo.external_utils" not in modules  # checks of an exported network
    return inside and modules[-1].startswith("torch.")


def random_state(device: torch.device) -> AbstractContextManager[None]:
    """Restore the random state of the CPU and of a device at the end."""
    return (
        torch.random.fork_rng([])
        if device.type == "cpu"
        else torch.random.fork_rng([device], device_type=device.type)
    )


@contextmanager
def kept_state(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass changes on a model: buffers, attributes, rescaled embeddings, lists and dicts.

    Weights are put back where the network replaces them, as by `weight.data = ...`. Containers are filled again in
    place: another module may hold the same one.
    """
    containers: dict[int, tuple[Any, Any]] = {}  # what may be changed in place, and a copy
    empty: list[Any] = []  # most hooks, and attributes of tensors
    tensors: dict[int, Tensor] = {}
    weights: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            tensors |= _by_id(module.buffers(recurse=False))
            continue
        containers[id(module.__dict__)] = module.__dict__, module.__dict__.copy()
        if module.__dict__.get("max_norm") is not None:  # an embedding that rescales its vectors as it reads them
            tensors |= _by_id(module.parameters(recurse=False))
        for name, value in module.__dict__.items():
            if type(value) in _UNCHANGEABLE:
                continue
            if isinstance(value, dict) and not value:
                empty.append(value)
            elif name in _OF_MODULES:
                containers[id(value)] = value, value.copy()
                if name == "_buffers":
                    tensors |= _by_id(value.values())
                elif name == "_parameters":
                    weights += [w for w in _by_id(value.values()).values() if type(w) is nn.Parameter]  # not lazy
            else:
                _gather(value, containers, tensors)
    for tensor in [*tensors.values(), *weights]:
        attributes = tensor.__dict__
        if attributes:
            containers[id(attributes)] = attributes, attributes.copy()
        else:
            empty.append(attributes)
    before: list[tuple[Tensor, Tensor, Tensor | None]] = [(weight, weight.data, None) for weight in weights]
    before += [(tensor, tensor.data, tensor.detach().clone()) for tensor in tensors.values()]
    try:
        yield
    finally:
        for container in empty:
            if container:
                container.clear()
        for container, copy in containers.values():
            _put_back(container, copy)
        with torch.no_grad():
            for tensor, data, value in before:
                if tensor.data_ptr() != data.data_ptr():
                    tensor.data = data
                if value is not None and not torch.equal(
                    tensor, value
                ):  # an unneeded write would break graphs that use the tensor
                    tensor.copy_(value)


_UNCHANGEABLE = {bool, int, float, str, type(None), torch.dtype, torch.device}
_OF_MODULES = {"_parameters", "_buffers", "_modules"}  # what these hold is known


def _by_id(tensors: Iterable[Tensor | None]) -> dict[int, Tensor]:
    """Tensors with memory of their own, by their ids."""
    return {id(tensor): tensor for tensor in tensors if tensor is not None and tensor.layout is torch.strided}


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
        same = list(container) == list(copy) and all(map(is_, container.values(), copy.values()))
    elif isinstance(container, set):
        same = container == copy
    else:
        same = len(container) == len(copy) and all(map(is_, container, copy))
    if not same:
        container.clear()
        if isinstance(container, dict | set):
            container.update(copy)
        else:
            container.extend(copy)
