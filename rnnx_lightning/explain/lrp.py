"""Layer-wise relevance propagation and deep Taylor decomposition."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, Target, as_tuple, explained_logit
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.isolation import isolated
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.operations import KNOWN
from rnnx_lightning.explain.rules import AlphaBeta, Rule, ZBox, ZPlus
from rnnx_lightning.explain.tracing import RelevanceTracer, UnexplainableError


class Explanation(NamedTuple):
    """Relevance at the input and on its way.

    Attributes:
        relevance: of the input's shape.
        logits: (B, K), as the model computed them.
        explained: (B,) the relevance that was sent down, max(z_y, 0).
        layers: for each asked-for layer the relevance of its outputs, one tensor a call, in the order of the calls
            (the time steps of a recurrent layer).
    """

    relevance: Tensor
    logits: Tensor
    explained: Tensor
    layers: dict[str, tuple[Tensor, ...]]


class LRP(Attributor):
    """Layer-wise relevance propagation [BML+16] from max(z_y, 0) down, right for recurrent networks.

    Without arguments: z+ everywhere. `LRP(alpha=1.5, beta=0.5)` is the published alpha-beta. Otherwise
    `LRP(rules)` with one rule for all layers, or a
    `Composite` that says which layer gets which.

    Args:
        rules: a rule or a composite.
        alpha: with `beta`, short for `rules=AlphaBeta(alpha, beta)`.
        beta: see above.

    Raises:
        ValueError: both `rules` and `alpha` are given, or alpha - beta is not 1.
    """

    def __init__(
        self, rules: Rule | Composite | None = None, *, alpha: float | None = None, beta: float | None = None
    ) -> None:
        if alpha is not None or beta is not None:
            if rules is not None:
                raise ValueError("give either rules or alpha and beta")
            if alpha is None or beta is None:
                raise ValueError("alpha and beta belong together: give both")
            rules = AlphaBeta(alpha, beta)
        rules = rules if rules is not None else ZPlus()
        self.composite = rules if isinstance(rules, Composite) else Composite(rules)

    def _relevance(self, model: nn.Module, x: Tensor, target: Target) -> Tensor:
        return self._explain(model, x, target, ()).relevance

    def explain(
        self, model: nn.Module, x: Tensor, target: Target = None, layers: Sequence[str] | str = ()
    ) -> Explanation:
        """As calling the method, but also shows how relevance travels.

        Args:
            model: the network.
            x: (B, ...) input.
            target: as for calling.
            layers: paths of modules, as `model.named_modules()` names them.

        Returns:
            An `Explanation`.

        Raises:
            ValueError: a layer does not exist or was not called, or see `__call__`.
            UnexplainableError: see `__call__`.
        """
        with isolated(model, x.device):
            return self._explain(model, x.detach().clone(), target, as_tuple(layers))

    def _explain(self, model: nn.Module, x: Tensor, target: Target, layers: tuple[str, ...]) -> Explanation:
        self.composite.check(model)
        x.requires_grad_()
        path = ModulePath(model, layers)
        # If it is refused, it runs once more, to say in which layer.
        for watched in (self.composite.by_layer or bool(layers), True):
            try:
                with path if watched else nullcontext(), RelevanceTracer(x, self.composite, path, KNOWN) as tracer:
                    logits = model(x)
                break
            except UnexplainableError:
                if watched:
                    raise
        if not isinstance(logits, Tensor) or tracer.info(logits) is None:
            raise UnexplainableError("the model's output is not made of its input by operations that were seen")
        value, index = explained_logit(logits.detach(), x, target)
        explained = value.clamp(min=0)
        start = torch.zeros_like(logits).scatter_(1, index, explained.unsqueeze(1))
        top = tracer.close(logits)
        kept = [tracer.parts_of(output) for name in layers for output in path.outputs[name]]
        wanted = [part for parts in kept for part in parts]
        gradients = torch.autograd.grad(top, [x, *wanted], start, allow_unused=True)
        relevance = torch.zeros_like(x) if gradients[0] is None else gradients[0]
        flow = iter(gradients[1:])
        at_layers: dict[str, tuple[Tensor, ...]] = {}
        outputs = iter(kept)
        for name in layers:
            calls = [
                tracer.relevance_at(output, [next(flow) for _ in next(outputs)]) for output in path.outputs[name]
            ]
            if not calls:
                raise ValueError(f"the layer {name!r} was not called, or its output is no tensor")
            at_layers[name] = tuple(calls)
        return Explanation(relevance.detach(), logits.detach(), explained, at_layers)


class DeepTaylor(LRP):
    """Deep Taylor decomposition [MLB+17]: z^B for what reads pixels, z+ for everything else.

    Args:
        low: the least value that a pixel can have.
        high: the greatest.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(Composite(ZPlus(), pixels=ZBox(low, high)))
