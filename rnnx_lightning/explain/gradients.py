"""Methods based on the gradient of the logit with respect to the input."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rnnx_lightning.explain.attributor import Attributor, Target, explained_logit
from rnnx_lightning.explain.backward_graph import operations
from rnnx_lightning.explain.gates import Gates, hold_gates_constant
from rnnx_lightning.explain.inputs import Inputs, filled, mapped, tensors_of, without_graph
from rnnx_lightning.explain.operations.recurrent import RecurrentModules
from rnnx_lightning.explain.process_settings import unfused_attention
from rnnx_lightning.explain.refusals import NO_GRADIENT, UnexplainableError
from rnnx_lightning.explain.saved_tensors import is_of_overwriting, overwriting_allowed
from rnnx_lightning.explain.spelling import PlainSpelling

UNUSED = "appears to not have been used in the graph"  # parts of torch's messages
UNDERIVED = (
    "derivative for",
    "no autograd formula",
    "is a view and is being modified inplace",
    "does not support automatic differentiation",
)


class GradientMethod(Attributor):
    """The base class of gradient methods.

    Args:
        gates: "free": gradients flow through gates. "constant": gates are constants, as in LRP. A gate is the
            output of a sigmoid that scales a signal, or anything computed only from gates, such as `1 - gate`.
        create_graph: keep the autograd graph of the relevance, so that it can be differentiated with respect to
            the parameters of the network. The vectors that are looked up at tokens are constants.

    Raises:
        ValueError: `gates` is neither "free" nor "constant".
    """

    needs_gradient = True

    def __init__(self, gates: Gates = "free", *, create_graph: bool = False) -> None:
        if gates not in get_args(Gates):
            raise ValueError(f"gates={gates!r}: choose from {', '.join(get_args(Gates))}")
        self.gates = gates
        self.create_graph = create_graph

    def _taken(self, x: Inputs) -> Inputs:
        return without_graph(x)  # the network gets copies below

    def __call__(self, model: nn.Module, x: Inputs, target: Target = None, **arguments: Any) -> Inputs:
        """Compute the relevance of `x`, see `Attributor`."""
        try:
            return super().__call__(model, x, target, **arguments)
        except RuntimeError as error:
            if self.create_graph or not is_of_overwriting(error):
                raise
        # Networks that are never differentiated by their input may do so. It costs a copy of what is overwritten.
        with overwriting_allowed():
            return super().__call__(model, x, target, **arguments)

    def _gradient(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        """Gradient of the explained logit, in the structure of `x`."""
        try:
            return self._gradient_of_pass(model, x, target)
        except RuntimeError as error:
            if UNUSED in str(error):
                raise UnexplainableError(NO_GRADIENT) from error
            if isinstance(error, NotImplementedError) or any(part in str(error) for part in UNDERIVED):
                raise UnexplainableError(
                    f"torch cannot differentiate the network: {str(error).rstrip('.')}. Detach its "
                    "argument, or explain by LRP."
                ) from error
            if self.create_graph and is_of_overwriting(error):
                raise UnexplainableError(
                    "The network overwrites in place what its gradient needs (such as x /= s, s made of x). "
                    f"Write x = x / s, or explain without create_graph. torch says: {error}"
                ) from error
            raise

    def _gradient_of_pass(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        x = mapped(lambda tensor: tensor.detach().requires_grad_(), x)
        leaves = tensors_of(x)
        with (
            PlainSpelling() if self._looks_at_graph else nullcontext(),
            self._recurrent_modules(leaves[0]),
            unfused_attention() if self.create_graph else nullcontext(),  # fused, it is differentiated only once
        ):
            # A network may overwrite its input, but not a leaf of the graph.
            value, _ = explained_logit(model(mapped(torch.clone, x)), x, target)
        if not value.requires_grad:
            raise UnexplainableError(NO_GRADIENT)
        nodes = operations(value) if self._looks_at_graph else []
        hooks: list[RemovableHandle] = []
        try:
            if self.gates == "constant":
                hooks += hold_gates_constant(nodes, leaves)
            hooks += self._change_backward(nodes)
            # NaN for the examples whose value is NaN or infinite: their gradient may look like any other.
            ones = value.detach() * 0 + 1
            several = len(leaves) > 1 or None  # an input that does not affect the output gets gradient 0
            gradients = torch.autograd.grad(
                value,
                leaves,
                ones,
                create_graph=self.create_graph,
                allow_unused=several,
                materialize_grads=bool(several),
            )
        finally:
            for hook in hooks:  # a second differentiation uses the unchanged backward pass
                hook.remove()
            del value
            nodes.clear()
        return filled(x, gradients)

    def _recurrent_modules(self, x: Tensor) -> AbstractContextManager[object]:
        """A context that runs recurrent modules as a GPU does not: as operations that the graph shows."""
        shown = self._looks_at_graph or self.create_graph  # cuDNN differentiates only once
        return RecurrentModules(None) if shown and x.is_cuda else nullcontext()

    @property
    def _looks_at_graph(self) -> bool:
        return self.gates == "constant"

    def _change_backward(self, nodes: list[Any]) -> list[RemovableHandle]:
        """Change the backward pass through these operations by hooks; for subclasses."""
        return []


class Sensitivity(GradientMethod):
    """Sensitivity analysis: R = (d z_y / d x)^2 [SVZ13].

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> model.weight.data = torch.tensor([[3.0, -2.0]])
        >>> Sensitivity()(model, torch.tensor([[1.0, 1.0]]))
        tensor([[9., 4.]])
    """

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        return mapped(torch.square, self._gradient(model, x, target))


class GradientTimesInput(GradientMethod):
    """R = x * d z_y / d x. For a ReLU network without biases, it adds up to z_y.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> model.weight.data = torch.tensor([[3.0, -2.0]])
        >>> GradientTimesInput()(model, torch.tensor([[1.0, 1.0]]))
        tensor([[ 3., -2.]])
    """

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        pairs = zip(tensors_of(x), tensors_of(self._gradient(model, x, target)), strict=True)
        return filled(x, [tensor * gradient for tensor, gradient in pairs])
