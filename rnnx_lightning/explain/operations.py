"""Every torch operation that the explainer knows, by kind.

What is not listed here is refused. Each kind is one function `(tracer, func, *args, **kwargs)`, which computes
the value of the operation and notes how relevance goes back through it.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.arithmetic import add, divide, multiply, negate, reverse_subtract, subtract
from rnnx_lightning.explain.linear_operations import (
    add_matrix_product,
    convolve,
    einsum,
    linear,
    matrix_product,
    total,
)
from rnnx_lightning.explain.pixels import Pixels, joined
from rnnx_lightning.explain.terms import Sums, Term, Terms
from rnnx_lightning.explain.tracing import KnownOperations, Once, PendingSum, RelevanceTracer, Traced

FIRST_ONLY = "Only the first argument may depend on the input."


def move(tracer: RelevanceTracer, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Entries are moved, chosen or repeated: relevance goes with them."""
    info = tracer.known(tensor, func, FIRST_ONLY)
    pending = info.pending

    def apply(part: Tensor) -> Any:
        return func(part, *args, **kwargs)

    def note(value: Tensor, number: int | None) -> Tensor:
        """Remember one output; `number` counts the outputs of an operation that has several."""

        def pick(outputs: Any) -> Tensor:
            return outputs if number is None else outputs[number]

        pixels = info.pixels
        if pixels is not None:
            pixels = pixels.moved(lambda part: pick(apply(part)), tensor.shape)
        new = Traced(info.nonnegative, pixels, info.gate, aliased=True)
        if pending is not None:
            new.pending = PendingSum(pending.rule, pending.terms.mapped(lambda part: pick(moved(part))))
        elif info.graph is not None:
            new.graph = Once(lambda: pick(moved_graph()))
        return tracer.remember(value, new)

    parts: dict[int, tuple[Tensor, Any]] = {}

    def moved(part: Tensor) -> Any:
        """All outputs for one sum, made once for all of them; the sum is kept so that its id stays its own."""
        if id(part) not in parts:
            parts[id(part)] = part, apply(part)
        return parts[id(part)][1]

    moved_graph = Once(lambda: apply(tracer.close(tensor)))
    if info.pending is None and info.graph is None:
        value = apply(tensor)
    else:
        info.aliased = True
        with torch.no_grad():
            value = apply(tensor)
    if isinstance(value, Tensor):
        return note(value, None)
    return type(value)(note(part, number) for number, part in enumerate(value))


def pad(
    tracer: RelevanceTracer,
    func: Any,
    tensor: Tensor,
    pad: Any,
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """Padding: what is added is no pixel, and the relevance that it gets is lost."""
    info = tracer.known(tensor, func, FIRST_ONLY)
    if mode != "constant":
        return move(tracer, func, tensor, pad, mode)
    if not value and info.pixels is None:
        return move(tracer, func, tensor, pad)
    pixels = info.pixels
    if pixels is not None:
        if not pixels.plain:
            tracer.refuse(func, "Pad the pixels before they are scaled.")
        inside = torch.ones_like(tensor, dtype=torch.bool) if pixels.mask is None else pixels.mask
        pixels = Pixels(func(inside, pad))
    result = func(tracer.close(tensor), pad, value=value)
    whole = info.pixels is not None and info.pixels.mask is None
    return tracer.remember(result, Traced((whole or info.nonnegative) and (value or 0) >= 0, pixels))


def join(tracer: RelevanceTracer, func: Any, tensors: Iterable[Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """Tensors are put together: relevance is split."""
    tensors = list(tensors)
    infos = [tracer.info(tensor) for tensor in tensors]
    pixels = joined(
        [None if info is None else info.pixels for info in infos],
        tensors,
        lambda parts: func(parts, *args, **kwargs),
    )
    pending = [info.pending for info in infos if info is not None and info.pending is not None]
    if len(pending) == len(tensors) and len({part.rule.sharing for part in pending}) == 1:
        with torch.no_grad():
            value = func(tensors, *args, **kwargs)
        rule = reduce(tracer.common_rule, [part.rule for part in pending])
        together = [part.terms.together() for part in pending]

        def terms(active_only: bool) -> list[Term]:
            each = [part(active_only)[0] for part in together]
            if any(term.by_value != each[0].by_value for term in each):
                each = [part()[0] for part in together]
            channels = zip(*(term.totals for term in each), strict=True)
            totals = tuple(
                None
                if all(part is None for part in parts)
                else func(
                    [torch.zeros_like(t) if p is None else p for p, t in zip(parts, tensors, strict=True)],
                    *args,
                    **kwargs,
                )
                for parts in channels
            )
            return [Sums(totals, all(term.by_value for term in each))]

        return tracer.remember(value, Traced(pending=PendingSum(rule, Terms(terms))))
    nonnegative = all(
        bool((tensor >= 0).all())
        if info is None
        else info.nonnegative or (info.pixels is not None and info.pixels.mask is None)
        for info, tensor in zip(infos, tensors, strict=True)
    )
    gate = all(info is not None and info.gate for info in infos)
    graph = Once(
        lambda: func(
            [
                tensor if info is None else tracer.close(tensor)
                for info, tensor in zip(infos, tensors, strict=True)
            ],
            *args,
            **kwargs,
        )
    )
    new = Traced(nonnegative, pixels, gate)
    if not gate:
        return tracer.remember(graph(), new)
    with torch.no_grad():
        value = func(tensors, *args, **kwargs)
    new.graph = graph
    return tracer.remember(value, new)


def activate(tracer: RelevanceTracer, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """An activation with f(0) = 0 that keeps signs, or ReLU: the relevance of its output is its input's."""
    tracer.known(tensor, func, FIRST_ONLY)
    with torch.no_grad():
        value = func(tensor, *args, **kwargs)
    passed = tracer.passed(tensor, value, active_only=func in _RELU)
    return tracer.remember(passed, Traced(nonnegative=func in _RELU or func in _NONNEGATIVE))


def clamp(
    tracer: RelevanceTracer, func: Any, tensor: Tensor, min: Any = None, max: Any = None, **kwargs: Any
) -> Tensor:
    """ReLU under another name; any other clamping is refused."""
    if min != 0 or max is not None or kwargs:
        tracer.refuse(func, "Only clamping to [0, infinity), which is ReLU, has a rule.")
    return activate(tracer, torch.relu, tensor)


def gate(tracer: RelevanceTracer, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A sigmoid: a gate where it scales a signal; elsewhere an activation by the identity rule."""
    with torch.no_grad():
        value = func(tensor, *args, **kwargs)
    plain = value
    graph = Once(lambda: tracer.passed(tensor, plain))
    return tracer.remember(value, Traced(nonnegative=True, gate=True, graph=graph))


def drop(
    tracer: RelevanceTracer,
    func: Any,
    tensor: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    """Dropout: nothing in eval mode; in train mode dropped units get none, as they are 0."""
    if not training or p == 0:
        return tensor
    if func in _AFFINE_DROPOUT:
        tracer.refuse(func, "In train mode it also shifts what it keeps: explain in eval mode.")
    with torch.no_grad():
        keep = func(torch.ones_like(tensor), p, True)
    return multiply(tracer, torch.mul, tensor, keep)


def largest(tracer: RelevanceTracer, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Max pooling: the winner takes all."""
    advice = "It pools only pixels alone or features alone, without indices."
    info = tracer.known(tensor, func, advice)
    if kwargs.get("return_indices") or (info.pixels is not None and info.pixels.mask is not None):
        tracer.refuse(func, advice)
    value = func(tracer.close(tensor), *args, **kwargs)
    return tracer.remember(
        value,
        Traced(
            info.nonnegative, None if info.pixels is None else Pixels(None, info.pixels.scale, info.pixels.shift)
        ),
    )


def copy(tracer: RelevanceTracer, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A change of memory layout, device or floating-point type."""
    target = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)]
    if target and not target[0].is_floating_point:
        tracer.refuse(func, "Relevance cannot go back through integers.")
    return move(tracer, func, tensor, *args, **kwargs)


def inplace(kind: Callable[..., Tensor], ordinary: Any) -> Callable[..., Tensor]:
    """The kind of an in-place operation, from its ordinary form."""

    def apply(tracer: RelevanceTracer, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        tracer.known(tensor, func, ADVICE["setitem"])
        return tracer.remember_inplace(tensor, kind(tracer, ordinary, tensor, *args, **kwargs))

    return apply


def relu(tracer: RelevanceTracer, func: Any, tensor: Tensor, inplace: bool = False) -> Tensor:
    """F.relu, also in place."""
    result = activate(tracer, torch.relu, tensor)
    return tracer.remember_inplace(tensor, result) if inplace else result


def _find(names: str) -> list[Any]:
    """All functions of these names in torch, torch.Tensor and torch.nn.functional."""
    spaces = (torch, torch.Tensor, F, torch._C._nn)
    return [getattr(space, name) for name in names.split() for space in spaces if hasattr(space, name)]


_BY_KIND: list[tuple[Callable[..., Any], str]] = [
    (
        move,
        "reshape view view_as reshape_as flatten unflatten permute transpose t swapaxes swapdims movedim moveaxis "
        "squeeze unsqueeze expand expand_as broadcast_to contiguous clone __getitem__ select narrow split chunk "
        "tensor_split unbind index_select flip roll rot90 repeat tile alias mT T",
    ),
    (pad, "pad"),
    (copy, "to float double half bfloat16 type_as cpu cuda"),
    (join, "cat concat concatenate stack hstack vstack dstack column_stack"),
    (activate, "relu6 leaky_relu elu selu celu tanh hardtanh softsign"),
    (relu, "relu"),
    (clamp, "clamp clip clamp_min"),
    (gate, "sigmoid hardsigmoid"),
    (drop, "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout"),
    (largest, "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d"),
    (add, "add __add__ __radd__"),
    (subtract, "sub subtract __sub__"),
    (reverse_subtract, "rsub __rsub__"),
    (multiply, "mul multiply __mul__ __rmul__"),
    (divide, "div divide true_divide __truediv__"),
    (negate, "neg negative __neg__"),
    (linear, "linear"),
    (matrix_product, "matmul mm bmm mv __matmul__ __rmatmul__"),
    (add_matrix_product, "addmm"),
    (einsum, "einsum"),
    (convolve, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    (total, "sum mean avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d"),
]

KINDS: dict[Any, Callable[..., Any]] = {func: kind for kind, names in _BY_KIND for func in _find(names)}
KINDS |= {getattr(torch.Tensor, name).__get__: move for name in ("T", "mT")}
KINDS[torch.Tensor.unfold] = move  # F.unfold pads, and is another operation
KINDS |= {func: inplace(activate, torch.relu) for func in _find("relu_")}
KINDS |= {func: inplace(add, torch.add) for func in _find("add_ __iadd__")}
KINDS |= {func: inplace(multiply, torch.mul) for func in _find("mul_ __imul__")}

_AFFINE_DROPOUT = set(_find("alpha_dropout"))
_RELU = set(_find("relu"))
_NONNEGATIVE = set(_find("relu6"))

# These give no tensor that is made of the input's values.
_PROPERTIES = (
    "shape dtype device ndim is_cuda requires_grad layout is_leaf names grad_fn is_sparse is_quantized is_meta "
    "is_nested is_mps itemsize nbytes"
)
HARMLESS: set[Any] = {
    getattr(torch.Tensor, name).__get__ for name in _PROPERTIES.split() if hasattr(torch.Tensor, name)
}
HARMLESS |= set(
    _find(
        "size dim ndimension numel nelement stride is_contiguous is_floating_point is_complex __len__ get_device "
        "element_size storage_offset __repr__ __format__ __hash__ is_same_size is_tensor item tolist __bool__ "
        "__float__ new_zeros new_ones new_full new_empty new_tensor zeros_like ones_like full_like empty_like "
        "rand_like randn_like"
    )
)

ADVICE = {
    "lstm": "Write the cell with nn.Linear, or load its weights into rnnx_lightning's LSTM.",
    "gru": "Write the cell with nn.Linear, or load its weights into rnnx_lightning's GRU.",
    "lstm_cell": "Write the cell with nn.Linear layers, sigmoid and tanh.",
    "gru_cell": "Write the cell with nn.Linear layers, sigmoid and tanh.",
    "rnn_tanh": "Write the cell with nn.Linear layers and tanh.",
    "rnn_relu": "Write the cell with nn.Linear layers and ReLU.",
    "batch_norm": "Fold it into the layer before it: torch.nn.utils.fusion.fuse_conv_bn_eval.",
    "softmax": "Explain the logits: leave the softmax out of the network.",
    "log_softmax": "Explain the logits: leave the softmax out of the network.",
    "setitem": "Collect the parts in a list and use torch.stack or torch.cat.",
    "detach": "It hides from the explainer what its result is made of.",
}

KNOWN = KnownOperations(KINDS, HARMLESS, ADVICE)
