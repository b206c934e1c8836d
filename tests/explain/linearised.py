"""A second way to LRP-0, by autograd alone: the gradient times the input of the network made linear at its point.

Under LRP-0 a sum of linear maps shares by R_i = a_i w_ij R_j / z_j. Where an activation hands its relevance on, a gate
takes none and a normaliser is a constant, R_j / z_j is the gradient of a network in which the activation is the chord
f(z) / z and gates, attention weights and deviations are constants (Ali et al., 2022). Biases take their share.
"""

import contextlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CHORDS = set("relu relu6 tanh gelu silu mish hardswish elu selu celu leaky_relu prelu hardtanh abs softsign tanhshrink".split())
CONSTANTS = set("sigmoid hardsigmoid softmax softplus exp rsqrt sqrt std var norm reciprocal cumprod".split())
AFFINE = set("add sub mul div __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ rsub batch_norm".split())
MOVES = set("""view reshape permute transpose t flatten unflatten unsqueeze squeeze cat stack flip unbind split chunk contiguous
    __getitem__ unfold expand repeat clone pad __get__ swapaxes movedim view_as""".split())
PRODUCTS = set("mul __mul__ __rmul__ __imul__ multiply matmul __matmul__ bmm mm einsum".split())


def chord(value: Tensor, x: Tensor) -> Tensor:
    """f(x) with the slope f(x) / x."""
    slope = torch.where(x == 0, 0, value / torch.where(x == 0, 1, x)).detach()
    return value.detach() + slope * (x - x.detach())


def scaled_to(x: Tensor, dims, shape, weight, bias, eps, centred=True) -> Tensor:
    """A norm whose deviation is a constant."""
    x = x - x.mean(dims, keepdim=True) if centred else x
    y = x * (x.square().mean(dims, keepdim=True) + eps).rsqrt().detach()
    y = y if weight is None else y * weight.view(shape)
    return y if bias is None else y + bias.view(shape)


def group_norm(x, groups, weight=None, bias=None, eps=1e-5, *_):
    inner = x.reshape(len(x), groups, -1)
    shape = (-1, *[1] * (x.dim() - 2))
    normed = scaled_to(inner, 2, (), None, None, eps).reshape(x.shape)
    return normed * (1 if weight is None else weight.view(shape)) + (0 if bias is None else bias.view(shape))


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5, *_):
    return scaled_to(x, tuple(range(-len(shape), 0)), shape, weight, bias, eps)


def rms_norm(x, shape, weight=None, eps=None):
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return scaled_to(x, tuple(range(-len(shape), 0)), shape, weight, None, eps, centred=False)


def normalize(x, p=2.0, dim=1, eps=1e-12, out=None):
    return x / x.norm(p, dim, keepdim=True).clamp_min(eps).detach()


def glu(x, dim=-1):
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b).detach()


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    scores = q @ k.mT * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1).detach() @ v


def multi_head(q, k, v, size, heads, weight, bias, bias_k, bias_v, zero, dropout, out_weight, out_bias, training=True,
               key_padding_mask=None, need_weights=True, attn_mask=None, use_separate_proj_weight=False, q_proj_weight=None,
               k_proj_weight=None, v_proj_weight=None, **_):  # fmt: skip
    """(T, B, C): projections, heads, attention, projection."""
    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else weight.chunk(3)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip((q, k, v), weights, bias.chunk(3), strict=True))
    q, k, v = (x.unflatten(2, (heads, -1)).permute(1, 2, 0, 3) for x in (q, k, v))  # (B, heads, T, C / heads)
    mask = torch.zeros(q.shape[2], k.shape[2])
    if attn_mask is not None:
        mask = mask.masked_fill(attn_mask, -math.inf) if attn_mask.dtype == torch.bool else attn_mask
    if key_padding_mask is not None:
        padding = key_padding_mask[:, None, None]
        mask = mask + (torch.zeros(padding.shape).masked_fill(padding, -math.inf) if padding.dtype == torch.bool else padding)
    out = attention(q, k, v, mask).permute(2, 0, 1, 3).flatten(2)
    return F.linear(out, out_weight, out_bias), None


def tanh(x):
    return chord(torch.tanh(x), x)


def relu(x):
    return chord(torch.relu(x), x)


def lstm_cell(x, state, w_ih, w_hh, b_ih=0, b_hh=0, w_hr=None):
    h, c = state
    i, f, g, o = (x @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, -1)
    c = f.sigmoid().detach() * c + i.sigmoid().detach() * tanh(g)
    h = o.sigmoid().detach() * tanh(c)
    return (h if w_hr is None else h @ w_hr.T), c


def gru_cell(x, h, w_ih, w_hh, b_ih, b_hh):
    (rx, zx, nx), (rh, zh, nh) = (x @ w_ih.T + b_ih).chunk(3, -1), (h @ w_hh.T + b_hh).chunk(3, -1)
    r, z = (rx + rh).sigmoid().detach(), (zx + zh).sigmoid().detach()
    return (1 - z) * tanh(nx + r * nh) + z * h


def rnn_cell(activation):
    return lambda x, h, w_ih, w_hh, b_ih, b_hh: activation(x @ w_ih.T + b_ih + h @ w_hh.T + b_hh)


def recurrent(cell, *arguments):
    """A fused recurrent module, unrolled: (B, T, C), or packed sequences by way of padded ones."""
    if isinstance(arguments[3], bool):
        x, hx, weights, biased, layers, _, _, both, batch_first = arguments
        x = x if batch_first else x.transpose(0, 1)
        lengths = torch.full((len(x),), x.shape[1])
    else:
        data, sizes, hx, weights, biased, layers, _, _, both = arguments
        lengths = (sizes[:, None] > torch.arange(int(sizes[0]))).sum(0)
        place = [(t, b) for t, size in enumerate(sizes.tolist()) for b in range(size)]
        steps, examples = (torch.tensor(part) for part in zip(*place, strict=True))
        x = torch.zeros(len(lengths), len(sizes), data.shape[1]).index_put((examples, steps), data)
    states = hx if isinstance(hx, tuple | list) else (hx,)
    count, ends = len(weights) // (layers * (1 + both)), []
    for layer in range(layers):
        directions = []
        for way in range(1 + both):
            k = layer * (1 + both) + way
            own = weights[k * count : (k + 1) * count]
            named = own if biased else [*own[:2], 0, 0, *own[2:]]
            state, steps_out = tuple(s[k] for s in states), [None] * x.shape[1]
            for t in reversed(range(x.shape[1])) if way else range(x.shape[1]):
                new = cell(x[:, t], state if len(state) > 1 else state[0], *named)
                going = (t < lengths)[:, None]
                state = tuple(torch.where(going, n, s) for n, s in zip(new if len(state) > 1 else (new,), state, strict=True))
                steps_out[t] = torch.where(going, state[0], 0)
            directions.append(torch.stack(steps_out, 1))
            ends.append(state)
        x = torch.cat(directions, 2)
    ends = [torch.stack(part) for part in zip(*ends, strict=True)]
    if isinstance(arguments[3], bool):
        return x if batch_first else x.transpose(0, 1).contiguous(), *ends
    return x[examples, steps], *ends


CELLS = {"lstm": lstm_cell, "gru": gru_cell, "rnn_tanh": rnn_cell(tanh), "rnn_relu": rnn_cell(relu)}
REPLACED = {"layer_norm": layer_norm, "group_norm": group_norm, "rms_norm": rms_norm, "normalize": normalize, "glu": glu,
            "instance_norm": lambda x, *_, **__: group_norm(x, x.shape[1]), "scaled_dot_product_attention": attention,
            "multi_head_attention_forward": multi_head}  # fmt: skip


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
        return leaf

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
        if name == "log_softmax":  # as the last operation, it is left out of what is explained
            return args[0]
        if name in CHORDS:
            x = args[0] if args else kwargs["input"]
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
    parts = [func(*(a.detach() if j in signals and j != k else a for j, a in enumerate(args)), **kwargs) for k in signals]
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
    """Runs a network whose ReLUs pass positive gradients of active units alone."""

    def run(self, name, func, args, kwargs):
        if name == "rnn_relu":
            return recurrent(rnn_cell(lambda x: GuidedReLU.apply(x, 0, None)), *args)
        if name == "relu":
            return GuidedReLU.apply(args[0], 0, None)
        if name == "relu6":
            return GuidedReLU.apply(args[0], 0, 6)
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

    try:
        x = leaf(x)
        with contextlib.ExitStack() as stack:
            watching = stack.enter_context(mode(leaves + tokens))
            number = explained(called(model, x, arguments), network.target)
        read = [leaf for _, _, leaf in watching.read]
        gradients = torch.autograd.grad(number.sum(), leaves + read, allow_unused=True)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
    shares = [combine(torch.zeros_like(r) if g is None else g, r.detach()) for g, r in zip(gradients, leaves + read, strict=True)]
    at_tokens = {id(t): torch.zeros(t.numel()) for t in tokens}
    for (part, ids, _), share in zip(watching.read, shares[len(leaves) :], strict=True):
        places = torch.arange(part.numel()).as_strided(ids.shape, ids.stride(), ids.storage_offset())
        at_tokens[id(part)].index_add_(0, places.flatten(), share.sum(-1).flatten())
    return shares[: len(leaves)] + [at_tokens[id(t)].view_as(t) for t in tokens], number.detach()
