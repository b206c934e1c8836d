"""A second way to LRP-0, by autograd: the gradient times the input of the network made linear at its point.

Under LRP-0 a sum of linear maps shares by R_i = a_i w_ij R_j / z_j. Where an activation hands its relevance on, a gate
takes none and a normaliser is a constant, R_j / z_j is the gradient of a network in which the activation is the chord
f(z) / z and gates, attention weights and deviations are constants (Ali et al., 2022). Biases take their share.
"""

import contextlib

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from rnnx_lightning.explain.saved_tensors import overwriting_allowed

from .replacements import CELLS, REPLACED, chord, recurrent, rnn_cell


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CHORDS = names(
    "relu relu6 tanh gelu silu mish hardswish elu selu celu leaky_relu prelu hardtanh abs softsign tanhshrink "
    "softshrink"
)
CONSTANTS = names("sigmoid hardsigmoid softmax softplus exp rsqrt sqrt std var norm reciprocal cumprod")
AFFINE = names("add sub mul div __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ rsub batch_norm")
MOVES = names("""view reshape permute transpose t flatten unflatten unsqueeze squeeze cat stack flip unbind split chunk
    contiguous __getitem__ unfold expand repeat clone pad __get__ swapaxes movedim view_as""")
PRODUCTS = names("mul __mul__ __rmul__ __imul__ multiply matmul __matmul__ bmm mm einsum")


class Plain(TorchFunctionMode):
    """Runs a network as it is, and makes what is read from tokens, at embeddings, a leaf."""

    def __init__(self, leaves: list[Tensor]) -> None:
        super().__init__()
        self.tokens, self.read = [leaf for leaf in leaves if not leaf.is_floating_point()], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        name = name if name.startswith("__") else name.rstrip("_")
        if name in ("embedding", "embedding_bag"):
            return getattr(self, name)(*args)
        return self.run(name, func, args, kwargs or {})

    def run(self, name, func, args, kwargs):
        return func(*args, **kwargs)

    def embedding(self, ids: Tensor, weight: Tensor, *_, **__) -> Tensor:
        leaf = weight[ids]
        for tokens in self.tokens:
            if ids.untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr():
                leaf = leaf.detach().requires_grad_()
                self.read.append((tokens, ids, leaf))
        return leaf.clone()  # a network may overwrite it

    def embedding_bag(self, ids: Tensor, weight: Tensor, *_, **__) -> Tensor:
        kept = (ids != 0).unsqueeze(-1)  # the catalogue's only bag takes the mean, and 0 is padding
        return (self.embedding(ids, weight) * kept).sum(1) / kept.sum(1)


class Linearised(Plain):
    """Runs a network as the one that is linear at its point.

    Scaled and shifted pixels are pixels still: to normalise them is handed on whole, as a chord is.
    """

    def __init__(self, leaves):
        super().__init__(leaves)
        self.pixels = {id(t): t for t in leaves}

    def run(self, name, func, args, kwargs):
        given = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor) and a.requires_grad]
        pixels = bool(given) and all(id(a) in self.pixels for a in given)
        value = self.changed(name, func, args, kwargs)
        if pixels and (name in MOVES or (len(given) == 1 and name in AFFINE)):
            if name in AFFINE:
                value = chord(value, given[0].expand_as(value))
            self.pixels.update((id(part), part) for part in tree_leaves(value) if isinstance(part, Tensor))
        return value

    def changed(self, name, func, args, kwargs):
        if name in CELLS and len(args) > 6:
            return recurrent(CELLS[name], *args)
        if name.endswith("_cell"):
            return CELLS[name.removesuffix("_cell")](*args)
        if name in REPLACED:
            return REPLACED[name](*args, **kwargs)
        if name == "detach":  # a value is what it is: relevance does not ask for its gradient
            return args[0]
        if name == "log_softmax":  # as the last operation, it is left out of what is explained
            return args[0]
        if name in CHORDS:
            x = args[0] if args else kwargs["input"]
            if x.is_complex():  # of a length, the gradient is its own chord
                return func(*args, **kwargs)
            return chord(func(x.detach().clone(), *args[1:], **kwargs), x)
        if name in CONSTANTS:
            return tree_map(lambda t: t.detach() if isinstance(t, Tensor) else t, func(*args, **kwargs))
        if name in PRODUCTS:
            if name == "einsum" and isinstance(args[1], tuple | list):
                args = (args[0], *args[1])
            return product(func, list(args), kwargs)
        if name in ("div", "true_divide", "__truediv__") and isinstance(args[1], Tensor):
            return func(args[0], args[1].detach())
        if name in ("__rtruediv__", "__rdiv__", "__pow__", "pow"):
            return func(*args, **kwargs).detach()
        if name == "lerp":
            start, end, weight = args
            return start + weight.detach() * (end - start)
        if name == "addcmul":
            return args[0] + product(torch.mul, list(args[1:]), {})
        return func(*args, **kwargs)


def product(func, args, kwargs):
    """Signals of a product take equal parts (LRP-half); a constant factor takes none."""
    signals = [k for k, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
    if len(signals) < 2:
        return func(*args, **kwargs)
    parts = [
        func(*(a.detach() if j in signals and j != k else a for j, a in enumerate(args)), **kwargs)
        for k in signals
    ]
    return sum(parts) / len(parts)


class GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward(x)
        ctx.high = high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        passed = (x > 0) if ctx.high is None else (x > 0) & (x < ctx.high)
        return gradient.clamp(min=0) * passed, None, None


class Guided(Plain):
    """Runs a network whose ReLUs pass positive gradients of active units only."""

    def run(self, name, func, args, kwargs):
        if name == "rnn_relu":
            return recurrent(rnn_cell(lambda x: GuidedReLU.apply(x, 0, None)), *args)
        if name == "relu":
            return GuidedReLU.apply(args[0], 0, None)
        if name == "relu6" or (name == "hardtanh" and kwargs["min_val"] == 0):  # nn.ReLU6 calls hardtanh
            return GuidedReLU.apply(args[0], 0, kwargs.get("max_val", 6))
        return func(*args, **kwargs)


def by_autograd(mode, network, model, x, arguments, called, explained, combine):
    """Relevance of x, one tensor a part of it, as `combine(gradient, leaf)` for a mode that changes the network."""
    parameters = [p.requires_grad_(False) for p in model.parameters()]
    leaves, tokens = [], []

    def leaf(part):
        if isinstance(part, PackedSequence):
            return PackedSequence(leaf(part.data), *part[1:])
        if isinstance(part, dict):
            return {key: leaf(value) for key, value in part.items()}
        if isinstance(part, tuple):
            return tuple(leaf(value) for value in part)
        (leaves if part.is_floating_point() else tokens).append(part := part.clone())
        return part.requires_grad_() if part.is_floating_point() else part

    def run(guard):
        with contextlib.ExitStack() as stack:
            stack.enter_context(guard())
            watching = stack.enter_context(mode(leaves + tokens))
            number = explained(called(model, x, arguments), network.target)
            read = [leaf for _, _, leaf in watching.read]
            gradients = torch.autograd.grad(number.sum(), leaves + read, allow_unused=True)
        return watching, number, read, gradients

    try:
        x = leaf(x)
        try:
            watching, number, read, gradients = run(contextlib.nullcontext)
        except RuntimeError as error:  # what a gradient needs was overwritten
            if "modified by an inplace operation" not in str(error):
                raise
            watching, number, read, gradients = run(overwriting_allowed)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
    shares = [
        combine(torch.zeros_like(r) if g is None else g, r.detach())
        for g, r in zip(gradients, leaves + read, strict=True)
    ]
    at_tokens = {id(t): torch.zeros(t.numel()) for t in tokens}
    for (part, ids, _), share in zip(watching.read, shares[len(leaves) :], strict=True):
        places = torch.arange(part.numel()).as_strided(ids.shape, ids.stride(), ids.storage_offset())
        at_tokens[id(part)].index_add_(0, places.flatten(), share.sum(-1).flatten())
    return shares[: len(leaves)] + [at_tokens[id(t)].view_as(t) for t in tokens], number.detach()
