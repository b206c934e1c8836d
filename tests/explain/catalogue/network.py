"""What a network of the catalogue is, and how it is made so that every part of it matters."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence
from torch.overrides import TorchFunctionMode

BATCH = 3
CATALOGUE: dict[str, "Network"] = {}


@dataclass(frozen=True)
class Network:
    """A network as people write it: how to build it, what it reads, and which of its numbers is explained."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    contains: str
    target: Any = None
    arguments: Callable[[], dict[str, Any]] = dict
    options: dict[str, Any] = field(default_factory=dict)
    """What a composite has to be told, such as products="half"."""
    dtype: torch.dtype = torch.float64
    piecewise: bool = False
    """Piecewise linear without gates: LRP-0 is the plain gradient times the input."""
    constant: bool = False
    """More than biases is lost: class tokens, start states or gates that scale constants."""
    second_way: bool = True
    """Whether the gradient of the linearised network is LRP-0; not where a gate is the only signal."""
    refused: str | None = None
    """What is said when relevance cannot be shared."""
    gain: float = 1.5
    """Times what the weights are larger than they start, so that the input matters beside the biases."""
    zennit: str | None = None
    """The name of the canonizer with which zennit explains it."""

    def make(self) -> tuple[nn.Module, Any, dict[str, Any]]:
        """The network in eval mode, its input and its further arguments, with positive numbers to explain."""
        for seed in itertools.count():
            torch.manual_seed(seed)
            with precision(self.dtype):
                model, x, arguments = self.build().to(self.dtype), self.inputs(), self.arguments()
                randomise(model, self.gain)
                with torch.no_grad(), Logits():
                    calibrate(model, x, arguments)
                    numbers = explained(called(model.eval(), x, arguments), self.target)
            if numbers.min() > 0.02 and numbers.max() < 1e4:
                return model, x, arguments
            if seed > 200:
                raise AssertionError(f"{self.name}: no seed gives positive numbers, last {numbers.tolist()}")
        raise AssertionError


def network(name: str, inputs: Callable[[], Any], contains: str, **details: Any) -> Callable[[Any], Any]:
    """Enters what builds a network, most often its class, into the catalogue."""

    def enter(build: Any) -> Any:
        assert name not in CATALOGUE, name
        CATALOGUE[name] = Network(name, build, inputs, contains, **details)
        return build

    return enter


class Logits(TorchFunctionMode):
    """Leaves out a log-softmax, as the explainer does with a network's last one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is F.log_softmax else func(*args, **(kwargs or {}))


@contextlib.contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Constants that a network makes itself, such as torch.zeros, are of the network's type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def randomise(model: nn.Module, gain: float) -> None:
    """Weights grow; parameters that start as all zeros, all ones or all something get values that matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            first = parameter.flatten()[0].item()
            if parameter.numel() < 2 or not bool((parameter == first).all()):
                if parameter.dim() > 1:
                    parameter.mul_(gain)
                continue
            if first == 0:
                parameter.normal_(0, 0.2)
            else:
                sign = torch.where(torch.rand_like(parameter) < 0.2, -1.0, 1.0)  # a norm's scale may be negative
                parameter.uniform_(0.5, 1.5).mul_(sign)


def calibrate(model: nn.Module, x: Any, arguments: dict[str, Any]) -> None:
    """Statistics of BatchNorm near those of the data, as after training, but not equal to them."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    model.eval()
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    called(model, x, arguments)
    for norm in norms:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        variance += 0.2 * variance.mean()  # channels that hardly vary are not blown up
        mean += 0.3 * variance.sqrt() * torch.randn_like(mean)
        variance *= 0.5 + torch.rand_like(variance)


def called(model: nn.Module, x: Any, arguments: dict[str, Any]) -> Any:
    """The network's output for x as the explainer takes it: a tensor, a tuple or a dict of its inputs."""
    if isinstance(x, dict):
        return model(**x, **arguments)
    if isinstance(x, tuple) and not isinstance(x, PackedSequence):
        return model(*x, **arguments)
    return model(x, **arguments)


def explained(output: Any, target: Any) -> Tensor:
    """The number that is explained, one an example (B,)."""
    if callable(target):
        return target(output)
    if output.dim() == 1 or output.shape[1:] == (1,):
        return output.flatten()
    if target is None:
        return output.max(1).values
    place = target if isinstance(target, tuple) else (target,)
    return output[(slice(None), *place)]


def single(x: Any, index: int) -> Any:
    """One example of a batch, as a batch of one."""
    if isinstance(x, PackedSequence):
        return pack_sequence([unpack_sequence(x)[index]])
    if isinstance(x, dict):
        return {key: single(value, index) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return type(x)(single(value, index) for value in x)
    return x[index : index + 1] if isinstance(x, Tensor) and len(x) == BATCH else x


def tensors(x: Any) -> list[Tensor]:
    """All tensors of an input or of a relevance, in order."""
    if isinstance(x, PackedSequence):
        return unpack_sequence(x)
    if isinstance(x, dict):
        return [part for value in x.values() for part in tensors(value)]
    return [part for value in x for part in tensors(value)] if isinstance(x, tuple | list) else [x]


def real(*shape: int) -> Callable[[], Tensor]:
    """Draws standard normal input of a shape without the batch."""
    return lambda: torch.randn(BATCH, *shape)


def tokens(kinds: int, steps: int) -> Callable[[], Tensor]:
    """Draws sequences of tokens; 0 is left for padding."""
    return lambda: torch.randint(1, kinds, (BATCH, steps))
