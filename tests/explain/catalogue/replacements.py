"""Operations as they are once the network is linear at its point: norms, attention, recurrent cells."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


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


def multi_head(
    q,
    k,
    v,
    size,
    heads,
    weight,
    bias,
    bias_k,
    bias_v,
    zero,
    dropout,
    out_weight,
    out_bias,
    training=True,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    use_separate_proj_weight=False,
    q_proj_weight=None,
    k_proj_weight=None,
    v_proj_weight=None,
    **_,
):
    """(T, B, C): projections, heads, attention, projection."""
    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else weight.chunk(3)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip((q, k, v), weights, bias.chunk(3), strict=True))
    q, k, v = (x.unflatten(2, (heads, -1)).permute(1, 2, 0, 3) for x in (q, k, v))  # (B, heads, T, C / heads)
    mask = torch.zeros(q.shape[2], k.shape[2])
    if attn_mask is not None:
        mask = mask.masked_fill(attn_mask, -math.inf) if attn_mask.dtype == torch.bool else attn_mask
    if key_padding_mask is not None:
        padding = key_padding_mask[:, None, None]
        mask = mask + (
            torch.zeros(padding.shape).masked_fill(padding, -math.inf) if padding.dtype == torch.bool else padding
        )
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
                state = tuple(
                    torch.where(going, n, s) for n, s in zip(new if len(state) > 1 else (new,), state, strict=True)
                )
                steps_out[t] = torch.where(going, state[0], 0)
            directions.append(torch.stack(steps_out, 1))
            ends.append(state)
        x = torch.cat(directions, 2)
    ends = [torch.stack(part) for part in zip(*ends, strict=True)]
    if isinstance(arguments[3], bool):
        return x if batch_first else x.transpose(0, 1).contiguous(), *ends
    return x[examples, steps], *ends


CELLS = {"lstm": lstm_cell, "gru": gru_cell, "rnn_tanh": rnn_cell(tanh), "rnn_relu": rnn_cell(relu)}
REPLACED = {
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "rms_norm": rms_norm,
    "normalize": normalize,
    "glu": glu,
    "instance_norm": lambda x, *_, **__: group_norm(x, x.shape[1]),
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": multi_head,
}
