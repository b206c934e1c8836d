import copy
import inspect

import pytest
import torch
from torch import nn

from rnnx_lightning import architectures
from rnnx_lightning.architectures import ConvDeep, layers

EVERY = ["Shallow", "Deep", "DeepV2", "ConvDeep", "RLSTM", "ConvRLSTM", "RGRU", "LSTM", "GRU"]
EVERY += ["Evidence", "ConvEvidence"]
NETWORKS = {"ConvDeep": (ConvDeep, 151_192)}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param][0]().eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_parameter_count(name):
    cls, expected = NETWORKS[name]
    assert sum(p.numel() for p in cls().parameters()) == expected
    assert f"{expected:,} parameters" in cls.__doc__


def test_logits_of_any_length(network):
    for samples in (1, 3, 5):
        assert network(torch.rand(4, 1, 28, 28 * samples)).shape == (4, 10)


@pytest.mark.parametrize("name", EVERY)
def test_pictures_of_another_height(name):
    """Each row of pixels counts, and no other height is read."""
    network = getattr(architectures, name)(columns=5, rows=22).eval()
    image = torch.rand(4, 1, 22, 60).requires_grad_()
    logits = network(image)
    assert logits.shape == (4, 10)
    (moved,) = torch.autograd.grad(logits.square().sum(), image)
    assert (moved.abs().sum((0, 1, 3)) > 0).all()
    with pytest.raises(ValueError, match=r"of shape \(B, 1, 22, multiple of 5\), got \(4, 1, 28, 60\)"):
        network(torch.rand(4, 1, 28, 60))


def shown(order, samples):
    """The pictures of sequences that show `samples` in this order."""
    return samples[order].permute(0, 2, 3, 1, 4).flatten(3)


@pytest.mark.parametrize("stationary", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_encoding_distinct_samples_once_gives_the_same_logits_and_gradients(name, stationary):
    torch.manual_seed(0)
    network = getattr(architectures, name)(dropout=0.0, stationary_dropout=stationary).double()
    samples = torch.rand(5, 1, 28, 28, dtype=torch.float64) * 2 - 1
    order = torch.randint(5, (7, 3))

    def gradients(*inputs):
        network.zero_grad()
        logits = network(*inputs)
        (logits * torch.arange(10)).sum().backward()
        return logits, [parameter.grad.clone() for parameter in network.parameters()]

    torch.testing.assert_close(gradients(samples, order), gradients(shown(order, samples)))


@pytest.mark.parametrize("name", ["Evidence", "ConvEvidence"])
def test_each_class_has_evidence_to_begin_with(name):
    """A class whose one unit gives nothing for any picture has no gradient, and is never learnt."""
    for seed in range(5):
        torch.manual_seed(seed)
        network = getattr(architectures, name)()
        logits = network(torch.rand(20, 1, 28, 84) * 2 - 1)
        assert (logits > 0).all()


class Ones(nn.Module):
    """A front that gives ones, so that what is left of them is the mask."""

    def forward(self, x):
        return x.new_ones(len(x), 128)


class Record(nn.Module):
    """A cell that keeps what it is given."""

    def drive(self, features):
        return features

    def forward(self, driven):
        self.given = driven
        return driven[:, -1]


@pytest.mark.parametrize("stationary", [False, True])
def test_each_step_has_a_mask_of_its_own_unless_dropout_is_stationary(stationary):
    torch.manual_seed(0)
    network = ConvDeep(dropout=0.5, stationary_dropout=stationary)
    network.front, network.cell = Ones(), Record()
    network(torch.zeros(3, 1, 28, 28), torch.tensor([[0, 1, 2], [2, 1, 0], [2, 0, 1]]))
    masks = network.cell.given
    assert masks.shape == (3, 12, 128)
    assert (masks != 0).float().mean().item() == pytest.approx(0.25, abs=0.03)  # dropped twice in a row
    assert [len(sequence.unique(dim=0)) for sequence in masks] == ([1, 1, 1] if stationary else [12, 12, 12])
    # A sample is encoded once, so that its steps have the same masks wherever it stands.
    assert torch.equal(masks[0, :4], masks[1, 8:]) != stationary
    assert torch.equal(masks[1, :4], masks[2, :4]) != stationary


def test_columns_are_read_left_to_right(network):
    """The last step reaches the logits in one hop: with r zeroed only it matters."""
    picture = torch.rand(2, 1, 28, 84)
    with torch.no_grad():
        network.cell.to_recurrent.weight.zero_()
    changed = picture.clone()
    changed[..., :77] = 0
    torch.testing.assert_close(network(picture), network(changed))


def test_pictures_of_another_size_are_refused(network):
    for shape in ((1, 1, 28, 80), (1, 1, 27, 84), (1, 3, 28, 84), (1, 1, 28, 0), (1, 28, 84), (28, 84)):
        with pytest.raises(ValueError, match="reads pictures of shape"):
            network(torch.rand(shape))


SIZES = {"columns", "rows", "features", "first", "hidden", "recurrent", "head", "units", "window", "classes"}


@pytest.mark.parametrize("wrong", [0, -7])
@pytest.mark.parametrize("name", EVERY)
def test_impossible_sizes_are_refused_by_their_names(name, wrong):
    network = getattr(architectures, name)  # `__init__` passes on options that a base class has
    sizes = {size for cls in network.__mro__[:3] for size in inspect.signature(cls).parameters if size in SIZES}
    assert {"columns", "rows", "classes"} < sizes
    for size in sizes:
        with pytest.raises(ValueError, match=f"^{size}={wrong} must be at least 1$"):
            network(**{size: wrong})


@pytest.mark.parametrize("limit", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_limit_is_refused(limit):
    with pytest.raises(ValueError, match=f"limit={limit} must be positive and finite"):
        architectures.Evidence(limit=limit)


def test_sum_like_pooling_is_twice_the_zero_padded_average():
    x = torch.rand(2, 3, 7, 5)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    torch.testing.assert_close(
        layers.SumLikePool2d()(x), 2 * torch.nn.functional.avg_pool2d(padded, 2), rtol=1e-6, atol=1e-6
    )


def test_weights_are_truncated_normal():
    weight = layers.bias_free_linear(400, 500).weight
    assert weight.abs().max() <= 2 / 20
    assert weight.std().item() == pytest.approx(0.88 / 20, rel=0.02)  # std of a normal cut at 2 sigma


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("stationary", [True, False])
def test_dropout_masks(stationary, times):
    dropout = layers.SequenceDropout(0.2, stationary, times)
    x = torch.ones(50, 12, 40)
    dropped = dropout(x)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.8**times])
    assert (dropped != 0).float().mean().item() == pytest.approx(0.8**times, abs=0.03)
    assert bool((dropped == dropped[:, :1]).all()) == stationary
    assert not bool((dropped[:1] == dropped[1:]).all())
    assert dropout.eval()(x) is x


def test_impossible_dropout_is_refused():
    with pytest.raises(ValueError, match="dropout=1"):
        layers.SequenceDropout(1.0)


def test_the_layout_in_memory_changes_nothing_in_training():
    torch.manual_seed(0)
    network = ConvDeep(dropout=0.0)
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    assert network.front[3].weight.stride() != plain.front[3].weight.stride()
    image, label = torch.rand(8, 1, 28, 84) * 2 - 1, torch.randint(10, (8,))
    for model in (network, plain):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(image), label).backward()
            optimizer.step()
    for (name, one), other in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=name)
