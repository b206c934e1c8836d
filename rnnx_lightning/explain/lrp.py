"""Layer-wise relevance propagation and deep Taylor decomposition."""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from rnnx_lightning.explain.attributor import Attributor, as_tuple, check_model, unfused
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.finite import total, warn_if_not_finite
from rnnx_lightning.explain.inputs import (
    Bound,
    Inputs,
    batch_size,
    copied,
    filled,
    holds_pixels,
    network_of,
    tensors_of,
)
from rnnx_lightning.explain.isolation import isolated
from rnnx_lightning.explain.linear import held
from rnnx_lightning.explain.module_path import ModulePath
from rnnx_lightning.explain.node import RELEVANCE, Node
from rnnx_lightning.explain.outputs import Target, explained_value, logits_in
from rnnx_lightning.explain.pieces import Place, with_parts
from rnnx_lightning.explain.recording import recorded
from rnnx_lightning.explain.refusals import EXTENSIONS, NothingToExplainWarning, UnexplainableError, warn
from rnnx_lightning.explain.rules import AlphaBeta, PixelBound, Rule, ZBox, ZPlus
from rnnx_lightning.explain.tape import Tape
from rnnx_lightning.explain.walk import find_exact, together, walk

Start = Literal["logit", "positive"]


class Explanation(NamedTuple):
    """Relevance at the input and at inner layers.

    Attributes:
        relevance: in the structure of the input.
        logits: (B, K), as computed by the model, before a softmax or sigmoid at the output.
        explained: (B,) the relevance at the output: z_y, or max(z_y, 0).
        layers: for each requested layer, the relevance of its outputs: one tensor per call, in the order of the
            calls (the time steps of a recurrent layer).
        nothing: (B,) True for examples without relevance to explain.
    """

    relevance: Any
    logits: Any
    explained: Tensor
    layers: dict[str, tuple[Tensor, ...]]
    nothing: Tensor


class LRP(Attributor):
    """Layer-wise relevance propagation [Bach et al., 2015], [BML+16], also for recurrent networks.

    `LRP()` uses z+ everywhere, `LRP(alpha=1.5, beta=0.5)` the alpha-beta rule. `LRP(rules)` uses one rule for all
    layers, or a `Composite`, which chooses a rule for each layer.

    Args:
        rules: a rule or a composite.
        alpha: with `beta`, short for `rules=AlphaBeta(alpha, beta)`.
        beta: see `alpha`.
        start: the relevance at the output. "logit": the explained logit z, of either sign; "positive": max(z, 0),
            as in the study. None: "logit" if the default rule is signed (`Epsilon`, `Gamma`), else "positive".
        create_graph: the relevance (and the logits of an explanation) can be differentiated with respect to the
            parameters, and be part of a loss. What the network detaches is constant; what it computes under
            `torch.no_grad` is not.

    Raises:
        ValueError: both `rules` and `alpha` are given, or alpha - beta is not 1.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import Epsilon
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> model[0].weight.data = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        >>> model[2].weight.data = torch.tensor([[2.0, 1.0]])
        >>> x = torch.tensor([[3.0, 1.0]])
        >>> model(x).item()
        10.0
        >>> LRP()(model, x)
        tensor([[8., 2.]])
        >>> LRP(Epsilon(0))(model, x)
        tensor([[9., 1.]])
    """

    warns_of_nan = True

    def __init__(
        self,
        rules: Rule | Composite | None = None,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        start: Start | None = None,
        create_graph: bool = False,
    ) -> None:
        if alpha is not None or beta is not None:
            if rules is not None:
                raise ValueError("give either rules, or alpha and beta")
            if alpha is None or beta is None:
                raise ValueError("alpha and beta belong together: give both")
            rules = AlphaBeta(alpha, beta)
        if start is not None and start not in get_args(Start):
            raise ValueError(f"start={start!r}: choose from {', '.join(get_args(Start))}")
        rules = rules if rules is not None else ZPlus()
        self.composite = rules if isinstance(rules, Composite) else Composite(rules)
        self.start = start or ("logit" if self.composite.default.sharing.signed else "positive")
        self.create_graph = create_graph
        self._steps: int | None = None

    def fitted(self, x: Inputs) -> "LRP":
        """A copy whose bounds of pixels are those of the whole input."""
        fitted = copy(self)
        pixels = [t for t in tensors_of(x) if holds_pixels(t)]
        fitted.composite = self.composite.fitted(pixels) if pixels else self.composite
        return fitted

    def in_segments(self, steps: int) -> "LRP":
        """A copy that has the values of so many time steps of a fused recurrent layer in memory at a time.

        Raises:
            ValueError: the relevance has a graph, which keeps the values of all steps.
        """
        if self.create_graph:
            raise ValueError("steps: a relevance with a graph keeps the values of all time steps; leave steps out")
        segmented = copy(self)
        segmented._steps = steps
        return segmented

    def _relevance(self, model: nn.Module, x: Inputs, target: Target) -> Inputs:
        return self._explain(model, x, target, ()).relevance

    def explain(
        self,
        model: nn.Module,
        x: Inputs,
        target: Target = None,
        layers: Sequence[str] | str = (),
        **arguments: Any,
    ) -> Explanation:
        """Like calling the method, but also returns the relevance at inner layers.

        Args:
            model: the network.
            x: see `Attributor.__call__`.
            target: see `Attributor.__call__`.
            layers: paths of modules, as in `model.named_modules()`.
            arguments: see `Attributor.__call__`.

        Returns:
            An `Explanation`.

        Raises:
            ValueError: a layer does not exist or was not called; or see `Attributor.__call__`.
            UnexplainableError: see `Attributor.__call__`.

        Examples:
            >>> import torch
            >>> from torch import nn
            >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
            >>> model[0].weight.data = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
            >>> model[2].weight.data = torch.tensor([[2.0, 1.0]])
            >>> explanation = LRP().explain(model, torch.tensor([[3.0, 1.0]]), layers=["1"])
            >>> explanation.layers["1"]  # the two hidden units, in the only call
            (tensor([[8., 2.]]),)
        """
        check_model(model)
        batch_size(x)

        def explain() -> Explanation:
            with isolated(model, tensors_of(x)[0].device):
                return self._explain(Bound(model, arguments), copied(x), target, as_tuple(layers))

        return unfused(explain)

    def _explain(self, model: nn.Module, x: Inputs, target: Target, layers: tuple[str, ...]) -> Explanation:
        network = network_of(model)
        self.composite.check(network)
        path = ModulePath(network, layers)
        # If an operation is refused, run again with module hooks, to name the layer in the message.
        for watched in (self.composite.by_layer or bool(layers), True):
            try:
                return self._attempt(model, x, target, path, watched)
            except UnexplainableError:
                if watched:
                    raise
        raise AssertionError  # the loop returns or raises

    def _attempt(
        self, model: nn.Module, x: Inputs, target: Target, path: ModulePath, watched: bool
    ) -> Explanation:
        composite, examples = self.fitted(x).composite, batch_size(x)

        def choose(output: Any) -> tuple[Any, Tensor]:
            return logits_in(output), explained_value(output, examples, target)[0]

        with torch.set_grad_enabled(self.create_graph):
            tape, inputs, logits, value = recorded(
                model, x, composite, path if watched else nullcontext(path), choose, self.create_graph, self._steps
            )
            top = tape.find(value)
            if top is None:
                raise UnexplainableError(
                    "the model's output does not depend on its input through recorded operations. If the output "
                    f"is several tensors, use a function as target that selects the one that does. {EXTENSIONS} "
                    "Comparisons (x > 0), such as those that make the spikes of spiking neurons, pass on no "
                    "relevance."
                )
            explained = value.clamp(min=0) if self.start == "positive" else value.clone()
            nothing = explained == 0
            strange = True
            if value.is_cuda:  # it is waited for only once
                strange = bool(nothing.any() | ~total((value, *tensors_of(x)), value.device).isfinite())
            if strange:
                self._warn(nothing)
            explanation = self._walk(tape, inputs, x, logits, explained, nothing, path, top)
            if strange:
                warn_if_not_finite(x, (value, explanation.relevance))
            return explanation

    def _walk(
        self,
        tape: Tape,
        inputs: list[Node],
        x: Inputs,
        logits: Any,
        explained: Tensor,
        nothing: Tensor,
        path: ModulePath,
        top: Node,
    ) -> Explanation:
        """Pass relevance back from `top`, the node of the explained values, to the inputs and the asked layers."""
        asked = {name: [tape.find(output) for output in outputs] for name, outputs in path.outputs.items()}
        read: dict[int, list[tuple[Place, Node]]] = {}
        same: dict[int, list[int]] = {}  # the nodes of one value: its own, and that as a sum
        for name, found in asked.items():
            if not found:
                raise ValueError(f"the layer {name!r} was not called, or its output is not a tensor")
            for node in found:
                if node is not None:
                    alike = [node] if node.twin is None else [node, node.twin]
                    same[id(node)] = [id(one) for one in alike]
                    for one in alike:
                        one.kept = True
                    read[id(node)] = [] if node.pieces is None else node.pieces.read
                    for _, view in read[id(node)]:
                        view.kept = True
        shapes = {name: [(o.shape, o.dtype, o.device) for o in outputs] for name, outputs in path.outputs.items()}
        top.exact = True
        nodes = tape.nodes()
        find_exact(nodes, not tape.composite.zero_gets_nothing or bool(path.outputs))
        top.receive(explained)
        kept: dict[int, Tensor | None] = {}
        walk(nodes, tape.composite, kept, bool(explained.any()))
        at_layers = {}
        for name, found in asked.items():
            own = [None if node is None else together(kept.get(i) for i in same[id(node)]) for node in found]
            whole = [
                torch.zeros(shape, dtype=dtype, device=device) if r is None else r.expand(shape)
                for r, (shape, dtype, device) in zip(own, shapes[name], strict=True)
            ]
            parts = [[(where, kept.get(id(view))) for where, view in read.get(id(node), ())] for node in found]
            at_layers[name] = tuple(map(with_parts, whole, parts))
        relevance = [
            torch.zeros(node.shape, dtype=node.dtype, device=node.device)
            if (r := node.inbox[RELEVANCE]) is None
            else r
            for node in inputs
        ]
        whole = filled(x, [r.expand(node.shape).contiguous() for r, node in zip(relevance, inputs, strict=True)])
        for node in inputs:
            node.free()  # the graph of the relevance may refer to the node, a cycle that would never be freed
        logits = held(logits) if isinstance(logits, Tensor) else logits
        return Explanation(whole, logits, explained, at_layers, nothing)

    def _warn(self, nothing: Tensor) -> None:
        if bool(nothing.any()):
            reason, hint = "0", ""
            if self.start == "positive":
                reason, hint = "not positive", ' LRP(..., start="logit") explains outputs of either sign.'
            warn(  # the same text for every batch, so that Python shows it once
                f"Some examples have nothing to explain: the explained output is {reason}, so all their relevance "
                f"is 0. `explain(...).nothing` says which.{hint}",
                NothingToExplainWarning,
            )


class DeepTaylor(LRP):
    """Deep Taylor decomposition [MLB+17]: z^B for layers that read pixels, z+ everywhere else.

    Args:
        low: the smallest possible value of a pixel, by default -1; see `ZBox`.
        high: the largest possible value, by default 1; see `ZBox`.
        create_graph: see `LRP`.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> model[0].weight.data = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        >>> model[2].weight.data = torch.tensor([[2.0, 1.0]])
        >>> DeepTaylor(low=0, high=3)(model, torch.tensor([[3.0, 1.0]]))
        tensor([[7.2000, 2.8000]])
    """

    def __init__(
        self,
        low: PixelBound | None = None,
        high: PixelBound | None = None,
        create_graph: bool = False,
    ) -> None:
        super().__init__(Composite(ZPlus(), pixels=ZBox(low, high)), create_graph=create_graph)
