"""Against packages that are newer than zennit and captum, on networks that they explain as they are."""

import autolrp
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer, vision_transformer

from rnnx_lightning.explain import LRP, AlphaBeta, Epsilon, Gamma, ZPlus

LINEAR = ("AddmmBackward", "ConvolutionBackward")


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        (Epsilon(1e-11), "epsilon"),
        (ZPlus(), "zplus"),
        (AlphaBeta(1.5, 0.5), ("alpha_beta", {"alpha": 1.5, "beta": 0.5})),
        (Gamma(0.25), ("gamma", {"gamma": 0.25})),
    ],
    ids=["epsilon", "z+", "alpha-beta", "gamma"],
)
def test_against_autolrp_on_a_feed_forward_network(rule, theirs):
    torch.manual_seed(0)
    front = [
        nn.Conv2d(1, 8, 5, stride=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2, bias=False),
        nn.ReLU(),
    ]
    reader = [
        nn.Linear(16 * 3 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, 3),
    ]  # wide: units whose inputs all have one sign differ
    network = nn.Sequential(*front, nn.Flatten(), *reader).double()
    for layer in network[-3::2]:
        nn.init.zeros_(layer.bias)
    x = torch.rand(1, 1, 21, 25, dtype=torch.float64)
    wrapped = autolrp.tensor(x.clone())
    logit = network(wrapped)[0, 1]
    logit.lrp(config=autolrp.LRPConfig(rule={**autolrp.BASE, **autolrp.on(LINEAR, theirs)}))  # it starts from 1
    expected = wrapped.relevance * logit.detach()
    torch.testing.assert_close(LRP(rule, start="logit")(network, x, 1), expected, rtol=1e-6, atol=1e-12)


def test_against_lxt_on_a_vision_transformer(monkeypatch):
    """LayerNorm's deviation and attention weights constant, GELU by the identity rule, epsilon 0."""
    lxt = pytest.importorskip("lxt.efficient", reason="lxt is not installed")
    from lxt.efficient.models import vit_torch

    torch.manual_seed(0)
    network = VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=5).double().eval()
    nn.init.normal_(network.heads[0].weight)
    x, target = torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2])
    ours = LRP(Epsilon(1e-12), start="logit")(network, x, target)
    for patched in vit_torch.cp_LRP:
        monkeypatch.setattr(patched, "forward", patched.forward)  # so that pytest puts it back
    lxt.monkey_patch(vision_transformer, vit_torch.cp_LRP)
    x.requires_grad_()
    logit = network(x).gather(1, target[:, None]).sum()
    expected = torch.autograd.grad(logit, x)[0] * x.detach()
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
