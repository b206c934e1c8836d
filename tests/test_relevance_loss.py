import pytest
import torch
import torch.nn.functional as F
from paths import ROOT

from rnnx_lightning.architectures import RLSTM, Deep
from rnnx_lightning.checkpoints import load_classifier, read_checkpoint
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.explain import (
    LRP,
    AlphaBeta,
    Composite,
    DeepTaylor,
    GuidedBackprop,
    IntegratedGradients,
    Sensitivity,
    ZBox,
)
from rnnx_lightning.relevance_loss import RelevanceLoss

METHODS = {
    "Sensitivity": Sensitivity,
    "GuidedBackprop": lambda **options: GuidedBackprop(gates="constant", **options),
    "DeepTaylor": DeepTaylor,
    "LRP": lambda **options: LRP(Composite(AlphaBeta(1.5, 0.5), pixels=ZBox(-1, 1)), **options),
}


def some_sequences(count=4, dtype=torch.float64):
    image = torch.rand(count, 1, 28, 84, dtype=dtype) * 2 - 1
    majority = torch.tensor([[True, True, False], [False, True, True]]).repeat(count // 2, 1)
    return image, torch.randint(10, (count,)), majority


@pytest.mark.parametrize("name", METHODS)
def test_it_is_one_minus_the_cosine_of_the_relevance_without_dropout(name):
    network, (image, label, majority) = Deep(dropout=0.5).double().train(), some_sequences()
    network.output.eval()  # frozen
    loss = RelevanceLoss(METHODS[name](create_graph=True), weight=3.0)(network, image, label, majority)
    assert network.training
    assert network.front.training
    assert not network.output.training
    relevance = METHODS[name]()(network.eval(), image, label)
    per_sample = torch.stack([part.flatten(1).sum(1) for part in relevance.chunk(3, dim=3)], 1)
    cosine = F.cosine_similarity(per_sample, majority.double(), dim=1)
    torch.testing.assert_close(loss.detach(), 3 * (1 - cosine.mean()))


@pytest.mark.parametrize("name", METHODS)
def test_its_gradient_is_that_of_finite_differences(name):
    network, batch = RLSTM(units=6, features=8).double(), some_sequences()
    loss = RelevanceLoss(METHODS[name](create_graph=True))
    parameters = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(network, *batch), parameters, allow_unused=True)
    direction = [torch.randn_like(p) for p in parameters]
    expected = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    ends = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += step * d
        ends.append(loss(network, *batch).detach())
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-6, expected, rtol=1e-4, atol=1e-7)


def test_where_nothing_is_explained_nothing_is_trained():
    network, (image, label, majority) = RLSTM(), some_sequences(dtype=torch.float32)
    with torch.no_grad():
        network.output.weight.zero_()  # all logits are 0
    loss = RelevanceLoss(METHODS["LRP"](create_graph=True))(network, image, label, majority)
    assert loss.item() == 1
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


def test_training_by_it_raises_the_cosine():
    network, (image, _, majority) = RLSTM(dropout=0.0), some_sequences(dtype=torch.float32)
    label = network(image).argmax(1)
    loss = RelevanceLoss(LRP(create_graph=True))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    seen = []
    for _ in range(20):
        optimizer.zero_grad()
        (value := loss(network, image, label, majority)).backward()
        optimizer.step()
        seen.append(value.item())
    assert seen[-1] < 0.8 * seen[0]


def test_the_classifier_adds_it_while_training_only():
    data = MajoritySequences("digits", batch_size=20)
    data.setup()
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
    with_it, without = (
        SequenceClassifier(Deep(dropout=0.0), relevance_loss=loss)
        for loss in (RelevanceLoss(LRP(create_graph=True), weight=0.5), None)
    )
    with_it.load_state_dict(without.state_dict())
    added = with_it.relevance_loss(with_it.network, batch.image, batch.label, batch.majority)
    losses = [model.training_step(batch, 0).detach() for model in (with_it, without)]
    torch.testing.assert_close(losses[0] - losses[1], added.detach())
    for stage in ("train", "val"):
        if stage == "val":
            for model in (with_it, without):
                model.validation_step(batch, 0)
        a, b = (getattr(model, f"{stage}_metrics").compute() for model in (with_it, without))
        assert a == b


@pytest.mark.parametrize("method", [Sensitivity(), LRP(), IntegratedGradients()])
def test_a_method_without_a_graph_is_refused(method):
    with pytest.raises(ValueError, match=f"{type(method).__name__} .* create_graph"):
        RelevanceLoss(method)


@pytest.mark.parametrize("weight", [0, -1, float("inf"), float("nan")])
def test_a_weight_must_be_positive(weight):
    with pytest.raises(ValueError, match=f"weight={weight} must be positive"):
        RelevanceLoss(Sensitivity(create_graph=True), weight)


def test_a_run_with_it_is_resumed_and_loaded(rnnx, tmp_path):
    options = ["--config", ROOT / "configs/deep.yaml", "--config", ROOT / "configs/relevance_loss.yaml"]
    options += ["--data.dataset", "digits", "--trainer.limit_train_batches", "2"]
    rnnx("fit", *options, "--trainer.max_epochs", "1")
    done = rnnx("fit", *options, "--trainer.max_epochs", "2", "--ckpt_path", "last")
    assert "relevance_loss.py" not in done.stderr  # warnings name where they come from
    (path,) = tmp_path.glob("logs/deep+relevance_loss/*/checkpoints/last.ckpt")
    saved = read_checkpoint(path)["hyper_parameters"]["relevance_loss"]
    assert saved["init_args"]["method"]["init_args"]["create_graph"] is True
    assert load_classifier(path).relevance_loss is None  # it is no part of what was trained
