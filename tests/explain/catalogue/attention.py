"""Transformers and attention, with torch's own modules and written out."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .network import BATCH, network, real, tokens


@network("transformer encoder", real(7, 3), "nn.TransformerEncoder, sinusoidal positions, mean")
class Encoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        angles = torch.arange(7.0)[:, None] * torch.exp(torch.arange(0, 8, 2) * (-math.log(1e4) / 8))
        self.register_buffer("pe", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.encoder(self.embed(x) * math.sqrt(8) + self.pe[: x.size(1)]).mean(dim=1))


network("transformer encoder, norm first", real(7, 3), "nn.TransformerEncoder with norm_first and GELU")(
    lambda: Encoder(norm_first=True, activation="gelu")
)


@network(
    "text transformer",
    lambda: tokens(12, 6)() * torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6, [1, 1, 1, 1, 1, 0]]),
    "nn.Embedding, learnt positions, key padding mask, [CLS], dict output",
    target=lambda out: out["logits"][:, 2],
    constant=True,
)
class TextTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.positions, self.cls = (
            nn.Embedding(12, 8, padding_idx=0),
            nn.Embedding(7, 8),
            nn.Parameter(torch.randn(1, 1, 8)),
        )
        self.norm, self.layers = (
            nn.LayerNorm(8),
            nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2),
        )
        self.pooler, self.classifier = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, ids):
        h = torch.cat([self.cls.expand(ids.size(0), -1, -1), self.words(ids)], dim=1)
        h = self.norm(h + self.positions(torch.arange(h.size(1))))
        mask = F.pad(ids == 0, (1, 0), value=False)
        h = self.layers(h, src_key_padding_mask=mask)
        return {"logits": self.classifier(torch.tanh(self.pooler(h[:, 0]))), "hidden": h}


class CausalBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2, self.c_attn, self.c_proj = (
            nn.LayerNorm(8),
            nn.LayerNorm(8),
            nn.Linear(8, 24),
            nn.Linear(8, 8),
        )
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(approximate="tanh"), nn.Linear(16, 8))
        self.register_buffer("bias", torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8))

    def attend(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(8, dim=2)
        q, k, v = (t.view(B, T, 2, C // 2).transpose(1, 2) for t in (q, k, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = F.softmax(att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf")), dim=-1)
        return self.c_proj((att @ v).transpose(1, 2).contiguous().view(B, T, C))

    def forward(self, x):
        x = x + self.attend(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


@network(
    "causal language model",
    tokens(12, 6),
    "attention written out, masked_fill, tanh GELU, tied weights",
    target=(5, 3),
)
class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe, self.h, self.ln_f = (
            nn.Embedding(12, 8),
            nn.Embedding(8, 8),
            nn.Sequential(CausalBlock(), CausalBlock()),
            nn.LayerNorm(8),
        )

    def forward(self, idx):
        x = self.wte(idx) + self.wpe(torch.arange(0, idx.size(1)).unsqueeze(0))
        return self.ln_f(self.h(x)) @ self.wte.weight.T


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


@network(
    "Llama block",
    tokens(12, 6),
    "RMSNorm by hand, rotary positions, scaled_dot_product_attention, SwiGLU",
    target=(5, 2),
    options={"products": "half"},
)
class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.norm2, self.norm3 = nn.Embedding(12, 8), RMSNorm(8), nn.RMSNorm(8), RMSNorm(8)
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(8, 8, bias=False) for _ in range(4))
        self.w1, self.w2, self.w3, self.head = (
            nn.Linear(8, 12, bias=False),
            nn.Linear(12, 8, bias=False),
            nn.Linear(8, 12, bias=False),
            nn.Linear(8, 12),
        )
        angles = torch.outer(torch.arange(6.0), torch.tensor([1.0, 0.1])).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def rotate(self, x):
        x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return x * self.cos + torch.cat((-x2, x1), dim=-1) * self.sin

    def forward(self, ids):
        x = self.embed(ids)
        y = self.norm1(x)
        q, k, v = (w(y).view(*y.shape[:2], 2, 4).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        out = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        x = x + self.wo(out.transpose(1, 2).reshape(x.shape))
        y = self.norm2(x)
        x = x + self.w2(F.silu(self.w1(y)) * self.w3(y))
        return self.head(self.norm3(x))


@network("ConvTran", real(2, 12), "Conv2d embedding, GELU, attention with a relative bias after softmax")
class ConvTran(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(
            nn.Conv2d(1, 6, (1, 5), padding="same"),
            nn.BatchNorm2d(6),
            nn.GELU(),
            nn.Conv2d(6, 8, (2, 1)),
            nn.BatchNorm2d(8),
            nn.GELU(),
        )
        self.query, self.key, self.value = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.relative, self.to_out = nn.Parameter(torch.randn(23, 2) * 0.1), nn.LayerNorm(8)
        self.norm1, self.norm2 = nn.LayerNorm(8, eps=1e-5), nn.LayerNorm(8, eps=1e-5)
        self.ff = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 8))
        self.gap, self.out = nn.AdaptiveAvgPool1d(1), nn.Linear(8, 3)
        self.register_buffer("index", (torch.arange(12)[:, None] - torch.arange(12)[None] + 11).flatten())

    def attend(self, x):
        b, n, _ = x.shape
        k = self.key(x).reshape(b, n, 2, -1).permute(0, 2, 3, 1)
        v, q = (m(x).reshape(b, n, 2, -1).transpose(1, 2) for m in (self.value, self.query))
        attn = F.softmax(torch.matmul(q, k) * 8**-0.5, dim=-1)
        attn = attn + self.relative[self.index].view(1, n, n, 2).permute(0, 3, 1, 2)
        return self.to_out(torch.matmul(attn, v).transpose(1, 2).reshape(b, n, -1))

    def forward(self, x):
        x = self.embed(x.unsqueeze(1)).squeeze(2).permute(0, 2, 1)
        x = self.norm1(x + self.attend(x))
        x = self.norm2(x + self.ff(x))
        return self.out(self.gap(x.permute(0, 2, 1)).flatten(1))


@network(
    "PatchTST",
    real(16, 2),
    "unfold into patches, channels folded into the batch, BatchNorm, nn.MultiheadAttention",
    target=(2, 1),
)
class PatchTST(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.position = nn.Linear(8, 6), nn.Parameter(torch.randn(3, 6) * 0.3)
        self.attention, self.norm = nn.MultiheadAttention(6, 2, batch_first=True), nn.BatchNorm1d(6)
        self.ff, self.head = (
            nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)),
            nn.Sequential(nn.Flatten(-2), nn.Linear(18, 4)),
        )

    def forward(self, x):
        x = x.permute(0, 2, 1).unfold(dimension=-1, size=8, step=4)
        z = (self.project(x) + self.position).reshape(-1, 3, 6)
        z = z + self.attention(z, z, z, need_weights=False)[0]
        z = self.norm(z.transpose(1, 2)).transpose(1, 2)
        z = z + self.ff(z)
        return self.head(z.view(x.shape[0], 2, 3, 6)).transpose(1, 2)


@network(
    "transformer with decoder",
    real(6, 4),
    "nn.Transformer, causal mask, learnt start",
    target=(3, 1),
    arguments=lambda: {"y": torch.randn(BATCH, 4, 4)},
)
class WithDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Linear(4, 8), nn.Linear(8, 3)
        self.transformer = nn.Transformer(8, 2, 1, 1, 12, batch_first=True)

    def forward(self, x, y):
        mask = nn.Transformer.generate_square_subsequent_mask(y.size(1), dtype=torch.get_default_dtype())
        return self.out(self.transformer(self.embed(x), self.embed(y), tgt_mask=mask))
