"""Captum's methods as ours, ours for Quantus, and an explainer that needs only torch."""

import subprocess
import sys

import captum.attr
import numpy as np
import pytest
import torch
from paths import ROOT
from torch import nn

from rnnx_lightning.explain import Captum, DeepTaylor, Sensitivity, UnexplainableError, quantus_explain_func


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 3)).eval()


@pytest.fixture
def x():
    return torch.rand(4, 1, 28, 28)


CASES = {
    "Occlusion": {"sliding_window_shapes": [1, 7, 7], "strides": [1, 7, 7], "baselines": -1.0},
    "Saliency": {"abs": False},
    "IntegratedGradients": {"n_steps": 8, "baselines": -1.0},
    "DeepLift": {"baselines": -1.0},
    "KernelShap": {"n_samples": 12, "feature_mask": (torch.arange(784) // 112).view(1, 1, 28, 28)},
    "GuidedBackprop": {},
}


@pytest.mark.parametrize("name", CASES)
def test_captum_gives_what_it_gives(name, net, x):
    target = torch.tensor([0, 2, 1, 0])
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in CASES[name].items()}
    torch.manual_seed(3)
    expected = getattr(captum.attr, name)(net).attribute(x.clone(), target=target, **arguments)
    torch.manual_seed(3)
    relevance = Captum(name, CASES[name])(net, x, target)
    torch.testing.assert_close(relevance, expected.detach().to(x.dtype))
    assert not relevance.requires_grad
    assert not net[1]._forward_hooks
    assert not net[1]._backward_hooks


def test_captum_explains_the_predicted_class_a_function_and_arguments(net, x):
    predicted = net(x).argmax(1)
    torch.testing.assert_close(Captum("Saliency")(net, x), Captum("Saliency")(net, x, predicted))
    by_function = Captum("Saliency")(net, x, lambda logits: logits[:, 2])
    torch.testing.assert_close(by_function, Captum("Saliency")(net, x, 2))

    class Two(nn.Module):
        def forward(self, a, b, scale):
            return torch.stack([(a * b).sum(1), a.sum(1)], 1) * scale

    a, b = torch.rand(3, 5), torch.rand(3, 5)
    relevance = Captum("InputXGradient")(Two(), {"a": a, "b": b}, 0, scale=2.0)
    torch.testing.assert_close(relevance["b"], 2 * a * b)


def test_captum_explains_tokens_by_leaving_them_out():
    class Count(nn.Module):
        def forward(self, tokens):
            ones = (tokens == 7).sum(1).float()
            return torch.stack([ones, -ones], 1)

    tokens = torch.tensor([[7, 1, 7], [2, 3, 7]])
    relevance = Captum("FeatureAblation", {"baselines": 0})(Count(), tokens, 0)
    assert relevance.tolist() == [[1, 0, 1], [0, 0, 1]]


def test_noise_tunnel_and_layers_are_named(net, x):
    relevance = Captum("NoiseTunnel", {"nt_samples": 2}, {"attribution_method": "InputXGradient"})(net, x, 1)
    assert relevance.shape == x.shape
    expected = captum.attr.GuidedGradCam(net, net[0]).attribute(x.clone(), 1)
    torch.testing.assert_close(Captum("GuidedGradCam", options={"layer": "0"})(net, x, 1), expected.detach())


def test_captum_refuses_what_it_would_get_wrong(x):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.out = nn.ReLU(), nn.Linear(784, 2)

        def forward(self, x):
            return self.out(self.relu(self.relu(x.flatten(1)) - 0.5))

    with pytest.raises(UnexplainableError, match="'relu' is called 2 times"):
        Captum("DeepLift")(Twice(), x, 0)
    for name, options, words in [
        ("Oclusion", None, "no method 'Oclusion' that explains inputs: choose from .*Occlusion"),
        ("LayerGradCam", None, "no method 'LayerGradCam'"),
        ("DeepLift", {"epsilon": 1}, "no option 'epsilon': it takes multiply_by_inputs, eps"),
    ]:
        with pytest.raises(ValueError, match=words):
            Captum(name, options=options)


def test_without_captum_one_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match="'Occlusion' needs captum, which is not installed: pip install captum"):
        Captum("Occlusion")


def test_captum_is_named_in_yaml():
    from jsonargparse import ArgumentParser

    from rnnx_lightning.explain import Attributor

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--method", type=Attributor)
    arguments = {"method": "Occlusion", "arguments": {"sliding_window_shapes": [1, 28, 7]}}
    chosen = parser.parse_object({"method": {"class_path": "rnnx_lightning.Captum", "init_args": arguments}})
    assert parser.instantiate_classes(chosen).method.arguments == {"sliding_window_shapes": (1, 28, 7)}


def test_ours_explain_arrays_for_quantus(net, x):
    relevance = quantus_explain_func(Sensitivity())(
        model=net, inputs=x.numpy(), targets=np.array([0, 1, 2, 0]), device=None
    )
    torch.testing.assert_close(torch.from_numpy(relevance), Sensitivity()(net, x, torch.tensor([0, 1, 2, 0])))


def test_quantus_scores_ours(net, x):
    quantus = pytest.importorskip("quantus")
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=5, subset_size=50, return_aggregate=False, disable_warnings=True
    )
    scores = metric(net, x.numpy(), net(x).argmax(1).numpy(), explain_func=quantus_explain_func(DeepTaylor(0, 1)))
    assert np.isfinite(scores).all()
    assert len(scores) == 4


BLOCKED = (
    "lightning pytorch_lightning torchvision torchmetrics jsonargparse rich matplotlib captum zennit pandas scipy"
)
ALONE = f"""
import sys
for name in {BLOCKED.split()}:
    sys.modules[name] = None  # importing it fails
import torch
import rnnx_lightning.explain as explain
from rnnx_lightning import LRP
x = torch.rand(2, 1, 4, 4)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
print(LRP(explain.EpsilonPlusFlat())(net, x, 1).shape)
"""


def test_the_explainer_needs_torch_alone():
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[2, 1, 4, 4]" in done.stdout
