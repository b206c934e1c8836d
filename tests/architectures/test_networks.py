import copy

import pytest
import torch

from rnnx_lightning.architectures import ConvDeep, layers

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


def test_distinct_samples_give_the_logits_of_the_assembled_pictures(network):
    samples = torch.rand(6, 1, 28, 28) * 2 - 1
    order = torch.randint(6, (8, 3))
    assembled = samples[order].permute(0, 2, 3, 1, 4).flatten(3)
    torch.testing.assert_close(network(samples, order), network(assembled), rtol=1e-5, atol=1e-6)


def test_columns_are_read_left_to_right(network):
    """The last step reaches the logits in one hop: with r zeroed only it matters."""
    picture = torch.rand(2, 1, 28, 84)
    with torch.no_grad():
        network.cell.to_recurrent.weight.zero_()
    changed = picture.clone()
    changed[..., :77] = 0
    torch.testing.assert_close(network(picture), network(changed))


def test_pictures_of_another_size_are_refused(network):
    for shape in ((1, 1, 28, 80), (1, 1, 27, 84), (1, 3, 28, 84)):
        with pytest.raises(ValueError, match="reads pictures of shape"):
            network(torch.rand(shape))


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
