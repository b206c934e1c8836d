"""Networks whose form depends on their input, or that are written in an uncommon style."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from .network import BATCH, network, real, tokens


@network(
    "Tree-LSTM", tokens(9, 7), "recursion over a tree, an example at a time, child states concatenated", target=1
)
class TreeLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(9, 5)
        self.mem_dim = 6
        self.ioux, self.iouh, self.fx, self.fh = (
            nn.Linear(5, 18),
            nn.Linear(6, 18),
            nn.Linear(5, 6),
            nn.Linear(6, 6),
        )
        self.wp = nn.Linear(6, 3)

    def node_forward(self, inputs, child_c, child_h):
        child_h_sum = torch.sum(child_h, dim=0, keepdim=True)
        iou = self.ioux(inputs) + self.iouh(child_h_sum)
        i, o, u = torch.split(iou, iou.size(1) // 3, dim=1)
        i, o, u = torch.sigmoid(i), torch.sigmoid(o), torch.tanh(u)
        f = torch.sigmoid(self.fh(child_h) + self.fx(inputs).repeat(len(child_h), 1))
        fc = torch.mul(f, child_c)
        c = torch.mul(i, u) + torch.sum(fc, dim=0, keepdim=True)
        return c, torch.mul(o, torch.tanh(c))

    def tree(self, inputs, k):
        if 2 * k + 1 < inputs.size(0):
            cs, hs = zip(*(self.tree(inputs, j) for j in (2 * k + 1, 2 * k + 2)), strict=True)
            cc, ch = torch.cat(cs, dim=0), torch.cat(hs, dim=0)
        else:
            cc = inputs[0].detach().new(1, self.mem_dim).fill_(0.0).requires_grad_()
            ch = inputs[0].detach().new(1, self.mem_dim).fill_(0.0).requires_grad_()
        return self.node_forward(inputs[k].unsqueeze(0), cc, ch)

    def forward(self, x):
        return torch.cat([self.wp(self.tree(self.emb(t), 0)[1]) for t in x])


@network(
    "pointer network",
    real(5, 2),
    "nn.LSTM, additive attention as output, gather of the chosen, one_hot",
    target=lambda out: out[0][:, 0, 2],
)
class PointerNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Linear(2, 6)
        self.enc = nn.LSTM(6, 6, batch_first=True)
        self.cell = nn.LSTMCell(6, 6)
        self.W1, self.W2, self.vt = (
            nn.Linear(6, 6, bias=False),
            nn.Linear(6, 6, bias=False),
            nn.Linear(6, 1, bias=False),
        )
        self.d0 = Parameter(torch.rand(6))

    def forward(self, x):
        e = self.emb(x)
        enc, (h, c) = self.enc(e)
        h, c = h[-1], c[-1]
        d = self.d0.unsqueeze(0).expand(len(x), -1)
        mask = torch.ones(len(x), 5)
        outs, ptr = [], []
        for _ in range(5):
            h, c = self.cell(d, (h, c))
            u = self.vt(torch.tanh(self.W1(enc) + self.W2(h).unsqueeze(1))).squeeze(-1)
            u = u.masked_fill(mask == 0, -1e9)
            outs.append(u)
            idx = F.softmax(u, -1).max(1)[1]
            ptr.append(idx)
            mask = mask * (1 - F.one_hot(idx, 5).to(mask.dtype))
            d = e.gather(1, idx.view(-1, 1, 1).expand(-1, 1, 6)).squeeze(1)
        return torch.stack(outs, 1), torch.stack(ptr, 1)


@network(
    "memory network",
    lambda: {"story": torch.randint(1, 9, (BATCH, 4, 5)), "query": torch.randint(1, 9, (BATCH, 5))},
    "hops over sentences, position encoding",
    target=1,
)
class MemN2N(nn.Module):
    def __init__(self):
        super().__init__()
        for hop in range(3):
            self.add_module(f"C_{hop}", nn.Embedding(9, 6, padding_idx=0))
        J, d = 5, 6
        self.register_buffer(
            "encoding",
            torch.tensor(
                [[(1 - (j + 1) / J) - ((k + 1) / d) * (1 - 2 * (j + 1) / J) for k in range(d)] for j in range(J)]
            ),
        )
        self.TA, self.out = Parameter(torch.randn(4, 6) * 0.1), nn.Linear(6, 3, bias=False)

    def forward(self, story, query):
        u = [torch.sum(self.C_0(query) * self.encoding.unsqueeze(0).expand_as(self.C_0(query)), 1)]
        for hop in range(2):
            A = getattr(self, f"C_{hop}")(story.view(story.size(0), -1)).view((*story.size(), 6))
            m_A = torch.sum(A * self.encoding.view(1, 1, 5, 6), 2) + self.TA
            u_temp = u[-1].unsqueeze(1).expand_as(m_A)
            prob = F.softmax(torch.sum(m_A * u_temp, 2), dim=1)
            C = getattr(self, f"C_{hop + 1}")(story.view(story.size(0), -1)).view((*story.size(), 6))
            m_C = torch.sum(C * self.encoding.view(1, 1, 5, 6), 2).permute(0, 2, 1)
            o = torch.sum(m_C * prob.unsqueeze(1).expand_as(m_C), 2)
            u.append(u[-1] + o)
        return self.out(u[-1])


class WeightDrop(nn.Module):
    def __init__(self, module, weights, dropout):
        super().__init__()
        self.module, self.weights, self.dropout = module, weights, dropout
        for w in weights:
            raw = getattr(module, w)
            del module._parameters[w]
            module.register_parameter(w + "_raw", Parameter(raw.data))

    def _setweights(self):
        for w in self.weights:
            raw = getattr(self.module, w + "_raw")
            setattr(self.module, w, F.dropout(raw, p=self.dropout, training=self.training))

    def forward(self, *args):
        self._setweights()
        return self.module.forward(*args)


@network("AWD-LSTM", tokens(9, 6), "weights dropped by setattr, tied output, locked dropout", target=1)
class AWD(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Embedding(9, 5)
        self.rnns = nn.ModuleList([WeightDrop(nn.LSTM(5, 5), ["weight_hh_l0"], 0.5) for _ in range(2)])
        for r in self.rnns:
            r.module.flatten_parameters = lambda *a, **k: None
        self.dec = nn.Linear(5, 9)
        self.dec.weight = self.enc.weight
        self.p = 0.3

    def lock(self, x):
        if not self.training:
            return x
        m = x.data.new(1, x.size(1), x.size(2)).bernoulli_(1 - self.p) / (1 - self.p)
        return m.expand_as(x) * x

    def forward(self, x):
        e = self.lock(
            F.embedding(x.t(), self.enc.weight, self.enc.padding_idx if self.enc.padding_idx is not None else -1)
        )
        for r in self.rnns:
            w = next(self.parameters()).data
            e, _ = r(e, (w.new(1, e.size(1), 5).zero_(), w.new(1, e.size(1), 5).zero_()))
            e = self.lock(e)
        return self.dec(e[-1])


class JitLSTMCell(torch.jit.ScriptModule):
    def __init__(self, i, h):
        super().__init__()
        self.weight_ih, self.weight_hh = Parameter(torch.randn(4 * h, i)), Parameter(torch.randn(4 * h, h))
        self.bias = Parameter(torch.randn(4 * h))

    @torch.jit.script_method
    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hx, cx = state
        gates = torch.mm(input, self.weight_ih.t()) + torch.mm(hx, self.weight_hh.t()) + self.bias
        i, f, c, o = gates.chunk(4, 1)
        i = torch.sigmoid(i)
        f = torch.sigmoid(f)
        c = torch.tanh(c)
        o = torch.sigmoid(o)
        cy = (f * cx) + (i * c)
        hy = o * torch.tanh(cy)
        return hy, (hy, cy)


class JitLayer(torch.jit.ScriptModule):
    def __init__(self, *a):
        super().__init__()
        self.cell = JitLSTMCell(*a)

    @torch.jit.script_method
    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        inputs = input.unbind(0)
        outputs = torch.jit.annotate(list[Tensor], [])
        for i in range(len(inputs)):
            out, state = self.cell(inputs[i], state)
            outputs += [out]
        return torch.stack(outputs), state


@network("scripted LSTM", real(6, 3), "torch.jit.ScriptModule, cell and loop", target=1, second_way=False)
class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = JitLayer(3, 5)
        self.fc = nn.Linear(5, 2)

    def forward(self, x):
        z = torch.zeros(len(x), 5)
        return self.fc(self.layer(x.transpose(0, 1), (z, z))[0][-1])


@network(
    "location-sensitive attention",
    real(6, 4),
    "Conv1d of earlier weights, which are added up in place",
    target=1,
    constant=True,
)
class LSA(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
        self.cell = nn.LSTMCell(6 + 3, 6)
        self.q, self.m, self.v = (
            nn.Linear(6, 5, bias=False),
            nn.Linear(6, 5, bias=False),
            nn.Linear(5, 1, bias=False),
        )
        self.loc, self.ld = nn.Conv1d(2, 4, 3, padding=1, bias=False), nn.Linear(4, 5, bias=False)
        self.proj = nn.Linear(12, 3)

    def forward(self, x):
        mem, _ = self.enc(x)
        pm = self.m(mem)
        B, T = x.shape[:2]
        h = c = x.new_zeros(B, 6)
        w = x.new_zeros(B, T)
        wc = x.new_zeros(B, T)
        ctx = x.new_zeros(B, 6)
        y = x.new_zeros(B, 3)
        for _ in range(3):
            h, c = self.cell(torch.cat((y, ctx), -1), (h, c))
            pa = self.ld(self.loc(torch.cat((w.unsqueeze(1), wc.unsqueeze(1)), dim=1)).transpose(1, 2))
            e = self.v(torch.tanh(self.q(h.unsqueeze(1)) + pa + pm)).squeeze(-1)
            w = F.softmax(e, dim=1)
            wc += w
            ctx = torch.bmm(w.unsqueeze(1), mem).squeeze(1)
            y = self.proj(torch.cat((h, ctx), 1))
        return y


@network(
    "BiLSTM with CRF scores",
    tokens(9, 5),
    "max over the last tag plus transitions",
    target=lambda out: out[:, 3, 2],
)
class BiCRF(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(9, 4)
        self.l = nn.LSTM(4, 4, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(8, 3)
        self.tr = Parameter(torch.randn(3, 3))

    def forward(self, x):
        em = self.fc(self.l(self.e(x))[0])
        score = em[:, 0]
        out = [score]
        for t in range(1, em.size(1)):
            b = score.unsqueeze(2) + self.tr + em[:, t].unsqueeze(1)
            score, _ = b.max(dim=1)
            out.append(score)
        return torch.stack(out, 1)


@network(
    "AGCRN",
    real(4, 5, 2),
    "weights of each node made of its embedding, GRU of graph convolutions",
    target=(2, 1),
    constant=True,
)
class AGCRN(nn.Module):
    def __init__(self):
        super().__init__()
        self.E = Parameter(torch.randn(5, 3))
        self.wg, self.bg = Parameter(torch.randn(3, 2, 6, 8) * 0.3), Parameter(torch.randn(3, 8))
        self.wu, self.bu = Parameter(torch.randn(3, 2, 6, 4) * 0.3), Parameter(torch.randn(3, 4))
        self.end = nn.Conv2d(1, 3, (1, 4))

    def gcn(self, x, w, b):
        s = F.softmax(F.relu(torch.mm(self.E, self.E.transpose(0, 1))), dim=1)
        sup = torch.stack([torch.eye(5), s], dim=0)
        w = torch.einsum("nd,dkio->nkio", self.E, w)
        b = torch.matmul(self.E, b)
        xg = torch.einsum("knm,bmc->bknc", sup, x).permute(0, 2, 1, 3)
        return torch.einsum("bnki,nkio->bno", xg, w) + b

    def forward(self, x):
        h = torch.zeros(x.shape[0], 5, 4)
        hs = []
        for t in range(x.shape[1]):
            zr = torch.sigmoid(self.gcn(torch.cat((x[:, t], h), dim=-1), self.wg, self.bg))
            z, r = torch.split(zr, 4, dim=-1)
            hc = torch.tanh(self.gcn(torch.cat((x[:, t], z * h), dim=-1), self.wu, self.bu))
            h = r * h + (1 - r) * hc
            hs.append(h)
        return self.end(torch.stack(hs, dim=1)[:, -1:]).squeeze(-1).permute(0, 2, 1)


@network(
    "Graph WaveNet",
    real(2, 5, 9),
    "gated Conv2d along time, learnt graph by einsum, skip sums",
    target=(1, 2),
    constant=True,
)
class GWN(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Conv2d(2, 4, (1, 1))
        self.f = nn.ModuleList([nn.Conv2d(4, 4, (1, 2), dilation=2**i) for i in range(3)])
        self.g = nn.ModuleList([nn.Conv2d(4, 4, (1, 2), dilation=2**i) for i in range(3)])
        self.skip = nn.ModuleList([nn.Conv2d(4, 6, (1, 1)) for _ in range(3)])
        self.bn = nn.ModuleList([nn.BatchNorm2d(4) for _ in range(3)])
        self.gc = nn.ModuleList([nn.Conv2d(12, 4, (1, 1)) for _ in range(3)])
        self.n1, self.n2 = Parameter(torch.randn(5, 3)), Parameter(torch.randn(3, 5))
        self.e1, self.e2 = nn.Conv2d(6, 8, (1, 1)), nn.Conv2d(8, 3, (1, 1))

    def forward(self, inp):
        x = F.pad(inp, (1, 0, 0, 0))
        x = self.start(x)
        skip = 0
        adp = F.softmax(F.relu(torch.mm(self.n1, self.n2)), dim=1)
        for i in range(3):
            residual = x
            x = torch.tanh(self.f[i](residual)) * torch.sigmoid(self.g[i](residual))
            s = self.skip[i](x)
            try:
                skip = skip[:, :, :, -s.size(3) :]
            except TypeError:
                skip = 0
            skip = s + skip
            out = [x]
            x1 = torch.einsum("ncvl,vw->ncwl", (x, adp)).contiguous()
            out.append(x1)
            out.append(torch.einsum("ncvl,vw->ncwl", (x1, adp)).contiguous())
            x = self.gc[i](torch.cat(out, dim=1))
            x = F.dropout(x, 0.3, training=self.training)
            x = x + residual[:, :, :, -x.size(3) :]
            x = self.bn[i](x)
        return self.e2(F.relu(self.e1(F.relu(skip))))[..., 0]
