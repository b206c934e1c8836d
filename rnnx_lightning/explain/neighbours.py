"""Connections to other libraries: methods of captum, and Quantus' `explain_func`."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnx_lightning.explain.attributor import Attributor, Target, trains
from rnnx_lightning.explain.finite import warn_if_not_finite
from rnnx_lightning.explain.inputs import (
    Bound,
    Inputs,
    batch_size,
    call,
    filled,
    has_tokens,
    network_of,
    output_at,
    tensors_of,
)
from rnnx_lightning.explain.outputs import explained_value, logits_in
from rnnx_lightning.explain.refusals import UnexplainableError
from rnnx_lightning.explain.saved_tensors import is_of_overwriting, overwriting_allowed

HOOKED = ("DeepLift", "DeepLiftShap", "GuidedGradCam", "LRP")  # keep only the input of a module's last call


class Captum(Attributor):
    """Any method of `captum.attr` that explains an input.

    Captum's guided backprop and DeepLift only see activations that are modules, not functions (`torch.relu`).

    Args:
        method: a class of `captum.attr`: Occlusion, FeatureAblation, KernelShap, DeepLift, NoiseTunnel, ...
        arguments: arguments of its `attribute` method, without inputs and target; lists become tuples.
        options: arguments of the class, without the network. A layer is given by its path; the method that
            NoiseTunnel averages is given by its name (`attribution_method`).

    Raises:
        ImportError: captum is not installed.
        ValueError: captum has no such method, or the method does not take these options.
        UnexplainableError: (when called) the method keeps one input per module, and a module is called several
            times.

    Examples:
        Occlude one time step of seven pixel columns at a time:

        `Captum("Occlusion", {"sliding_window_shapes": (1, 28, 7), "strides": (1, 28, 7), "baselines": -1})`
    """

    def __init__(
        self, method: str, arguments: dict[str, Any] | None = None, options: dict[str, Any] | None = None
    ) -> None:
        try:
            self._captum = importlib.import_module("captum.attr")
        except ImportError as error:
            raise ImportError(
                f"the method {method!r} needs captum, which is not installed: pip install captum"
            ) from error
        self._kind(method)
        self.method = method
        self.arguments = {name: _tupled(value) for name, value in (arguments or {}).items()}
        self.options = {name: _tupled(value) for name, value in (options or {}).items()}
        first, *others = list(inspect.signature(getattr(self._captum, method)).parameters)
        taken = [first, *others] if first == "attribution_method" else others
        if unknown := [name for name in self.options if name not in taken]:
            raise ValueError(f"{method} has no option {unknown[0]!r}: it takes {', '.join(taken) or 'none'}")

    def _kind(self, name: str) -> Any:
        """The class with this name."""
        module = self._captum
        methods = [
            known
            for known in module.__all__
            if isinstance(kind := getattr(module, known), type)
            and issubclass(kind, module.GradientAttribution | module.PerturbationAttribution | module.NoiseTunnel)
            and not issubclass(kind, module.LayerAttribution | module.NeuronAttribution)
            and kind not in (module.GradientAttribution, module.PerturbationAttribution)
            and known != "LayerLRP"
        ]
        if name not in methods:
            raise ValueError(
                f"captum.attr has no method {name!r} that explains inputs: choose from {', '.join(methods)}"
            )
        return getattr(module, name)

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        if isinstance(x, PackedSequence):
            raise UnexplainableError("captum does not take packed sequences: use padded tensors, or LRP")
        gradient = self.method == "NoiseTunnel" or issubclass(
            self._kind(self.method), self._captum.GradientAttribution
        )
        if gradient and has_tokens(x):
            raise UnexplainableError(
                f"Tokens have no gradient, as captum's {self.method} needs: use FeatureAblation, or LRP."
            )
        value, index = explained_value(output_at(model, x), batch_size(x), target)
        warn_if_not_finite(x, value)
        whole = _Tensors(model, x, target if callable(target) else None)
        options = dict(self.options)
        if "layer" in options:
            options["layer"] = network_of(model).get_submodule(options["layer"])
        inner = options.pop("attribution_method", "Saliency")
        for name in (self.method, inner) if self.method == "NoiseTunnel" else (self.method,):
            if name in HOOKED:
                _refuse_repeated(whole, tensors_of(x), name)
        source = self._kind(inner)(whole) if self.method == "NoiseTunnel" else whole
        chosen = None if callable(target) else target if index is None else index.squeeze(1)
        attribute = self._kind(self.method)(source, **options).attribute
        try:
            found = attribute(tuple(tensors_of(x)), target=chosen, **self.arguments)
        except RuntimeError as error:
            if not is_of_overwriting(error):
                raise
            with overwriting_allowed():
                found = attribute(tuple(tensors_of(x)), target=chosen, **self.arguments)
        return filled(x, [part.detach().to(_floating(of)) for part, of in zip(found, tensors_of(x), strict=True)])


class _Tensors(nn.Module):
    """A network that takes the tensors of its input as separate arguments, as captum passes them."""

    def __init__(self, model: nn.Module, x: Inputs, choose: Callable[[Any], Tensor] | None) -> None:
        super().__init__()
        self.network = network_of(model)
        self.train(trains(self.network))
        self._given = model.arguments if isinstance(model, Bound) else {}
        self._structure = x
        self._choose = choose

    def forward(self, *tensors: Tensor) -> Tensor:
        """(B, K) logits, or the explained value of each example."""
        output = call(self.network, filled(self._structure, map(torch.clone, tensors)), self._given)
        return logits_in(output) if self._choose is None else self._choose(output)


def _refuse_repeated(model: nn.Module, tensors: list[Tensor], method: str) -> None:
    """Refuse a network that calls one of its layers several times.

    Raises:
        UnexplainableError: a layer is called several times; the message names it.
    """
    calls: dict[str, int] = {}

    def counting(name: str) -> Callable[..., None]:
        def count(*_: Any) -> None:
            calls[name] = calls.get(name, 0) + 1

        return count

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [module.register_forward_pre_hook(counting(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            model(*tensors)
    finally:
        for hook in hooks:
            hook.remove()
    if repeated := [name for name, count in calls.items() if count > 1]:
        raise UnexplainableError(
            f"captum's {method} keeps one input per layer, but {repeated[0].removeprefix('network.')!r} is called "
            f"{calls[repeated[0]]} times, so its relevance would be wrong. Use LRP or DeepTaylor."
        )


def _tupled(value: Any) -> Any:
    """Lists (from YAML) as tuples (for captum)."""
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value


def _floating(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype()


def quantus_explain_func(method: Attributor) -> Callable[..., Any]:
    """Wrap a method as Quantus' `explain_func`, which takes and returns NumPy arrays.

    Args:
        method: any attributor.

    Returns:
        `explain_func(model, inputs, targets, **ignored)`, which maps inputs (B, ...) and targets (B,) to relevance
        with the shape of the inputs.
    """

    def explain_func(model: nn.Module, inputs: Any, targets: Any, **ignored: Any) -> Any:
        like = next(model.parameters(), torch.empty(0))
        x = torch.as_tensor(inputs, dtype=like.dtype, device=like.device)
        return method(model, x, torch.as_tensor(targets, device=like.device).long()).cpu().numpy()

    return explain_func
