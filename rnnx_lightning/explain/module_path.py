"""The module that a forward pass is currently in."""

from operator import is_
from types import TracebackType

from torch import Tensor, nn
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from rnnx_lightning.explain.storage import memory_of

COMPILED_PREFIX = "_orig_mod."


def layer_names(model: nn.Module) -> dict[nn.Module, str]:
    """The path of every module; that of the model itself is ''. A compiled module has its original name."""
    return {module: name.replace(COMPILED_PREFIX, "") for name, module in model.named_modules()}


class ModulePath:
    """A context that knows the running module, and keeps the outputs of some modules.

    It uses global module hooks, none on the model itself. They double the cost of calling a small module, so do
    not enter the context if modules are not needed.

    Args:
        model: the network.
        keep: paths of the modules whose outputs are kept.

    Raises:
        ValueError: a path in `keep` does not exist.
    """

    def __init__(self, model: nn.Module, keep: tuple[str, ...] = ()) -> None:
        self._names: dict[nn.Module, str] = {}
        self._model = model
        self._stack: list[nn.Module] = []
        self._memory: set[int] | None = None  # of the parameters
        self.outputs: dict[str, list[Tensor]] = {name: [] for name in keep}

    def __enter__(self) -> "ModulePath":
        self._names = layer_names(self._model)
        known = {name for name in self._names.values() if name}
        if unknown := [name for name in self.outputs if name not in known]:
            raise ValueError(f"no layer {unknown[0]!r} in the network: choose from {', '.join(sorted(known))}")

        def enter(module: nn.Module, args: object) -> None:
            if module in self._names:
                self._stack.append(module)

        def leave(module: nn.Module, args: object, output: object) -> None:
            if module in self._names:
                self._stack.pop()
                name = self._names[module]
                while isinstance(output, tuple) and output:
                    output = output[0]  # for nn.LSTM all hidden states, for a packed sequence its data
                if name in self.outputs and isinstance(output, Tensor):
                    self.outputs[name].append(output)

        self._hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def has_bias(self, constant: Tensor, value: Tensor) -> bool:
        """Whether a constant that is added to a value is a bias: one of fewer dimensions, or a parameter."""
        if constant.dim() < value.dim():
            return True
        memory = self._memory
        if memory is None:
            parameters = list(self._model.parameters())
            plain = [_without_wrappers(parameter) for parameter in parameters]
            memory = {memory_of(parameter) for parameter in plain}
            if all(map(is_, plain, parameters)):  # else the network runs with others, by functional_call
                self._memory = memory
        return memory_of(constant) in memory

    @property
    def module(self) -> nn.Module | None:
        """The innermost running module."""
        return self._stack[-1] if self._stack else None

    @property
    def place(self) -> tuple[nn.Module, ...]:
        """All running modules, the innermost last."""
        return tuple(self._stack)

    @place.setter
    def place(self, modules: tuple[nn.Module, ...]) -> None:
        self._stack[:] = modules

    @property
    def name(self) -> str:
        """The path of the innermost running module; '' for the model itself."""
        return self._names[self._stack[-1]] if self._stack else ""

    def __str__(self) -> str:
        """For messages: " in 'cell.gate' (Linear)"."""
        if self.module is None:
            return ""
        return f" in {self.name!r} ({type(self.module).__name__})" if self.name else " in the network's forward"


def _without_wrappers(tensor: Tensor) -> Tensor:
    """The tensor that `torch.vmap` and the like have wrapped."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor
