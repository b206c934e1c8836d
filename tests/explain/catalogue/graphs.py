"""Networks on graphs and sets, networks that compare by distances, and networks that round."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import network, real

FROM = torch.tensor([0, 1, 2, 3, 4, 5, 0, 2])
TO = torch.tensor([1, 2, 3, 4, 5, 0, 3, 5])


@network("graph convolution, added messages", real(6, 4), "index_add of messages, two layers, mean of the nodes")
class GraphConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 8)])
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(x)
            x = F.relu(h + torch.zeros_like(h).index_add(1, TO, h[:, FROM]))
        return self.out(x.mean(1))


@network("graph isomorphism network", real(6, 4), "scatter_add in place, sum of the nodes", piecewise=False)
class Isomorphism(GraphConvolution):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            messages = x[:, FROM]
            place = TO[None, :, None].expand_as(messages)
            x = F.relu(layer(1.1 * x + torch.zeros_like(x).scatter_add_(1, place, messages)))
        return self.out(x.sum(1))


@network("GraphSAGE", real(6, 4), "scatter_reduce (mean) beside the node itself, largest of the nodes")
class Sage(GraphConvolution):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(x)
            place = TO[None, :, None].expand(len(x), -1, h.shape[-1])
            near = torch.zeros_like(h).scatter_reduce(1, place, h[:, FROM], "mean", include_self=False)
            x = F.relu(near + h)
        return self.out(x.amax(1))


@network("graph attention", real(6, 4), "softmax over a node's edges by exp and index_add")
class GraphAttention(GraphConvolution):
    def forward(self, x: Tensor) -> Tensor:
        h = self.layers[0](x)
        weight = F.leaky_relu(h[:, FROM].sum(-1) + h[:, TO].mean(-1), 0.2).exp()
        total = x.new_zeros(len(x), 6).index_add_(1, TO, weight)
        weight = (weight / total[:, TO]).unsqueeze(-1)
        return self.out(F.elu(torch.zeros_like(h).index_add_(1, TO, h[:, FROM] * weight)).mean(1))


@network("graph convolution, sparse", real(6, 4), "torch.sparse.mm with the adjacency, an example at a time")
class SparseConvolution(GraphConvolution):
    def forward(self, x: Tensor) -> Tensor:
        near = torch.sparse_coo_tensor(torch.stack([TO, FROM]), torch.ones(8, dtype=x.dtype), (6, 6))
        h = torch.stack([torch.sparse.mm(near, self.layers[0](nodes)) for nodes in x])
        return self.out(F.relu(h).mean(1))


@network(
    "PointNet",
    real(7, 3),
    "points turned by a matrix made of them, largest over points",
    options={"products": "half"},
)
class PointNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.look, self.turn = nn.Conv1d(3, 8, 1), nn.Linear(8, 9)
        self.features, self.out = nn.Conv1d(3, 16, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen = F.relu(self.look(x.mT)).amax(2)
        turned = x @ (self.turn(seen).view(-1, 3, 3) + torch.eye(3, dtype=x.dtype))
        return self.out(F.relu(self.features(turned.mT)).amax(2))


@network(
    "prototypes", real(4), "negative distances (torch.cdist) to learnt prototypes", constant=True, second_way=False
)
class Prototypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.prototypes = nn.Linear(4, 8), nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        return 30 - torch.cdist(F.relu(self.layer(x)), self.prototypes)


@network("twins compared by distance", lambda: (torch.randn(3, 4), torch.randn(3, 4)),
         "two inputs, |a - b| and the norm of a - b", second_way=False)  # fmt: skip
class Twins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(4, 8), nn.Linear(9, 1)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        difference = F.relu(self.layer(one)) - F.relu(self.layer(two))
        return self.out(torch.cat([difference.abs(), difference.norm(dim=1, keepdim=True)], 1)).squeeze(1)


@network("quantised network", real(4), "activations rounded as in training for quantisation", second_way=False)
class Quantised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(torch.fake_quantize_per_tensor_affine(self.first(x), 0.05, 0, -128, 127))
        return self.out(F.relu(torch.fake_quantize_per_tensor_affine(self.second(h), 0.05, 0, -128, 127)))


@network("LeNet with sigmoids", real(1, 16, 16), "sigmoid, average pooling, sigmoid", second_way=False)
class LeNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 3, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2), nn.Conv2d(3, 6, 5), nn.Sigmoid(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 10), nn.Sigmoid(), nn.Linear(10, 3),
        )  # fmt: skip


@network("categories among numbers", real(6, 5), "one column cast to whole numbers and embedded, nn.GRU",
         second_way=False)  # fmt: skip
class Categories(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.gru, self.out = nn.Embedding(7, 4), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        kind = (x[..., 0].clamp(-2.9, 2.9) + 3).long()
        return self.out(self.gru(torch.cat([x[..., 1:], self.table(kind)], -1))[0][:, -1])


@network(
    "RWKV channel mixing", real(6, 4), "shifted tokens, squared ReLU, receptance by a sigmoid", second_way=False
)
class ChannelMixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(4, 8, bias=False), nn.Linear(8, 4, bias=False)
        self.receptance, self.out = nn.Linear(4, 4, bias=False), nn.Linear(4, 2)
        self.mix = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        mixed = x * self.mix + F.pad(x, (0, 0, 1, -1)) * (1 - self.mix)
        seen = self.value(torch.square(torch.relu(self.key(mixed))))
        return self.out((torch.sigmoid(self.receptance(mixed)) * seen).sum(1))


@network(
    "orthogonal RNN", real(6, 4), "orthogonal parametrization, modReLU: sign(z) relu(|z| + b)", second_way=False
)
class OrthogonalRNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.out = nn.Linear(4, 8), nn.Linear(8, 3)
        self.turn = nn.utils.parametrizations.orthogonal(nn.Linear(8, 8, bias=False))
        self.bias = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 8)
        for step in x.unbind(1):
            z = self.turn(h) + self.read(step)
            h = torch.sign(z) * F.relu(z.abs() + self.bias)
        return self.out(h)
