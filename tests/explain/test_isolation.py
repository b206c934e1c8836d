"""Nothing is left behind, and the surroundings do not matter."""

import random
from contextlib import nullcontext
from operator import attrgetter

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.overrides import TorchFunctionMode

from rnnx_lightning.architectures import RLSTM, ConvDeep
from rnnx_lightning.explain import (
    LRP,
    DeepTaylor,
    Epsilon,
    GuidedBackprop,
    IntegratedGradients,
    Sensitivity,
    SmoothGrad,
    UnexplainableError,
)
from rnnx_lightning.explain.cudnn import in_training

METHODS = [Sensitivity(), GuidedBackprop(), DeepTaylor(), LRP(alpha=2, beta=1), SmoothGrad(samples=2),
           IntegratedGradients(steps=2)]  # fmt: skip


def state(model):
    modules = list(model.modules())
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [(p.requires_grad, p.grad) for p in model.parameters()],
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in modules],
        [sorted(vars(m)) for m in modules],
        torch.get_rng_state(),
        len(nn.modules.module._global_forward_hooks),
        len(nn.modules.module._global_forward_pre_hooks),
        torch.is_grad_enabled(),
        random.getstate(),
    )


def assert_same(before, after):
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=0)
    assert before[1:4] == after[1:4]
    assert torch.equal(before[4], after[4])
    assert before[5:] == after[5:]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [ConvDeep, RLSTM])
def test_the_model_is_as_it_was(make, training, method):
    model, x = make().train(training), torch.rand(2, 1, 28, 84)
    kept = x.clone()
    before = state(model)
    assert method(model, x, 1).isfinite().all()
    assert_same(before, state(model))
    assert torch.equal(x, kept)
    assert x.grad is None


def test_the_model_is_as_it_was_after_an_exception():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x):
            return torch.softmax(self.norm(self.layer(x)), dim=1)

    model, x = Fails(), torch.rand(3, 4)
    before = state(model)
    with pytest.raises(UnexplainableError):
        DeepTaylor()(model, x)
    assert_same(before, state(model))
    with pytest.raises(ValueError, match="target 9"):
        Sensitivity()(model, x, 9)
    assert_same(before, state(model))


def test_running_statistics_are_put_back():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    x = torch.rand(5, 4)
    before = state(model)
    Sensitivity()(model, x, 0)
    assert_same(before, state(model))


@pytest.mark.parametrize("make", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("method", [*METHODS[:4], IntegratedGradients(steps=2)], ids=lambda m: type(m).__name__)
def test_embeddings_that_are_rescaled_are_put_back(method, make):
    """torch writes vectors of length `max_norm` into the weights whenever longer ones are read."""
    model = nn.Sequential(make(9, 4, max_norm=0.1), nn.Flatten(), nn.LazyLinear(3))
    tokens = torch.tensor([[1, 2, 3], [2, 5, 8]])
    model(tokens)
    nn.init.normal_(model[0].weight)
    before = model[0].weight.detach().clone()
    method(model, tokens, 1)
    assert torch.equal(model[0].weight, before)
    model(tokens)
    assert not torch.equal(model[0].weight, before)


@pytest.mark.parametrize("method", METHODS[:4], ids=lambda m: type(m).__name__)
def test_surroundings_change_nothing(method):
    model, x = ConvDeep().eval(), torch.rand(2, 1, 28, 84)
    expected = method(model, x, 1)
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with context:
            assert torch.equal(method(model, x, 1), expected)
    with torch.inference_mode():
        made_there = x.clone()
    assert torch.equal(method(model, made_there, 1), expected)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert torch.equal(method(model, x, 1), expected)


@pytest.mark.parametrize("method", METHODS[:4], ids=lambda m: type(m).__name__)
def test_a_compiled_model_is_explained_like_the_plain_one(method):
    model, x = ConvDeep().eval(), torch.rand(2, 1, 28, 84)
    expected = method(model, x, 1)
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    assert torch.equal(method(compiled, x, 1), expected)
    in_place = ConvDeep().eval()
    in_place.load_state_dict(model.state_dict())
    in_place.compile(backend="eager")
    in_place(x)
    assert torch.equal(method(in_place, x, 1), expected)


def test_half_precision_models_work():
    model, x = ConvDeep().bfloat16(), torch.rand(2, 1, 28, 84, dtype=torch.bfloat16)
    for method in METHODS[:4]:
        relevance = method(model, x, 1)
        assert relevance.dtype == torch.bfloat16
        assert relevance.isfinite().all()


def test_explaining_in_train_mode_explains_the_dropped_out_network():
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 2, bias=False)).train()
    explanation = DeepTaylor(0, 1).explain(model, torch.rand(4, 6), layers=["2"])
    (dropped,) = explanation.layers["2"]
    assert (dropped == 0).float().mean() > 0.4
    torch.testing.assert_close(dropped.sum(1), explanation.explained)


SETTINGS = ["cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"]


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9")
@pytest.mark.parametrize("chosen", ["highest", "high", "medium", "convolutions"])
def test_products_of_single_precision_are_not_rounded(chosen):
    def settings():
        owners = [attrgetter(setting)(torch.backends) for setting in SETTINGS]
        return [torch.get_float32_matmul_precision(), *(owner.fp32_precision for owner in owners)]

    class Looks(nn.Linear):
        def forward(self, x):
            seen.append(settings())
            # This reads torch's older settings, which cannot name convolutions without recurrent layers.
            with nullcontext() if chosen == "convolutions" else torch.backends.cudnn.flags(enabled=False):
                return super().forward(x)

    first = settings()
    seen, model = [], Looks(3, 2)
    if chosen == "convolutions":
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    else:
        torch.set_float32_matmul_precision(chosen)
    try:
        before = settings()
        LRP(Epsilon())(model, torch.rand(2, 3), 0)
        assert settings() == before
    finally:
        torch.set_float32_matmul_precision("highest")
        for setting, value in zip(SETTINGS, first[1:], strict=True):
            attrgetter(setting)(torch.backends).fp32_precision = value
    assert seen == [["highest", *["ieee"] * 6]]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("module", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_in_training_mode_for_cudnn(module, training, packed):
    """The dropout of a layer in eval mode is left out, that of a layer in training stays."""
    torch.manual_seed(0)
    layer = module(3, 4, 2, dropout=0.5, batch_first=True).double().train(training)
    x = torch.rand(2, 5, 3, dtype=torch.float64)
    calls = []

    class Trained(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (torch.lstm, torch.gru, torch.rnn_tanh):
                args = in_training(args)
                calls.append(args[-2 if packed else -3])
            return func(*args, **(kwargs or {}))

    def output():
        torch.manual_seed(1)
        result = layer(pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True) if packed else x)[0]
        return result.data if packed else result

    expected = output()
    with Trained():
        torch.testing.assert_close(output(), expected)
    assert calls == [True]
