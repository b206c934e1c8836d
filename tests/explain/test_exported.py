"""A network that was scripted, traced or exported has the relevance of the module that it was made of."""

import pytest
import torch
from readers import assert_equal
from torch import nn

from rnnx_lightning.explain import (
    LRP,
    Epsilon,
    GradientTimesInput,
    GuidedBackprop,
    InChunks,
    IntegratedGradients,
    UnexplainableError,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch wants no new TorchScript


class Reader(nn.Module):
    """Reads a sequence through a recurrent module of torch; fused on a CPU if it is an LSTM in float32."""

    def __init__(self, kind, tokens=False, **options):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(7, 4) if tokens else nn.Identity()
        self.rnn = getattr(nn, kind)(4, 6, batch_first=True, **options)
        self.norm = nn.BatchNorm1d(6 * (2 if options.get("bidirectional") else 1))
        self.out = nn.Sequential(nn.Linear(self.norm.num_features, 5), nn.GELU(), nn.Linear(5, 3))

    def forward(self, x):
        return self.out(self.norm(self.rnn(self.table(x))[0].amax(1)))


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.out = nn.GRUCell(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 6)
        for t in range(5):
            h = self.cell(x[:, t], h)
        return self.out(h)


class InPlace(nn.Module):
    """Steps are written to memory; decomposed, each write makes a new tensor."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.out = nn.Linear(4, 6), nn.InstanceNorm1d(5), nn.Linear(6, 3)

    def forward(self, x):
        h, kept = self.norm(torch.relu(self.first(x))), torch.empty(x.shape[0], 3, 6)
        kept[:, :2] = h[:, :2]
        kept[:, 2].copy_(h[:, 2:].sum(1))
        return self.out(kept.amax(1))


NETWORKS = {
    "LSTM": lambda: Reader("LSTM", bidirectional=True),
    "two layers": lambda: Reader("LSTM", num_layers=2),
    "GRU": lambda: Reader("GRU", num_layers=2),
    "RNN": lambda: Reader("RNN"),
    "tokens": lambda: Reader("LSTM", tokens=True),
    "cell": Cell,
    "in place": InPlace,
}
ANY = torch.export.Dim("batch", min=1)
SCRIPTS = ("scripted", "traced", "frozen")
FORMS = {
    "scripted": lambda model, x: torch.jit.script(model),
    "traced": lambda model, x: torch.jit.trace(model, (x,)),
    "frozen": lambda model, x: torch.jit.freeze(torch.jit.script(model)),
    "exported": lambda model, x: torch.export.export(model, (x,), dynamic_shapes=({0: ANY},)).module(),
    "decomposed": lambda model, x: torch.export.export(model, (x,)).run_decompositions().module(),
    "unflattened": lambda model, x: torch.export.unflatten(torch.export.export(model, (x,))),
}
METHODS = {
    "epsilon": LRP(Epsilon(1e-3)),
    "alpha-beta": LRP(alpha=2, beta=1, start="logit"),
    "with a graph": LRP(Epsilon(1e-3), create_graph=True),
    "in chunks": InChunks(LRP(Epsilon(1e-3)), 2),
    "guided": GuidedBackprop(),
    "gates held": GradientTimesInput(gates="constant"),
    "integrated": IntegratedGradients(0.0, steps=3),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_its_form_does_not_matter(name, form, method):
    model, x = NETWORKS[name]().eval(), torch.randint(0, 7, (3, 5)) if name == "tokens" else torch.randn(3, 5, 4)
    made, explain = FORMS[form](model, x), METHODS[method]
    fused = torch.backends.mkldnn.enabled
    if method == "in chunks" and form in ("decomposed", "unflattened"):
        return  # made for this number of examples
    try:
        relevance = explain(made, x, 1)
    except UnexplainableError as refusal:
        assert explain.needs_gradient
        reason = "TorchScript" if form in SCRIPTS else "derivative for aten::copy is not implemented"
        assert reason in str(refusal)  # noqa: PT017
    else:
        assert_equal(relevance, explain(model, x, 1), 1e-4)
    assert torch.backends.mkldnn.enabled is fused


def test_relevance_of_inner_layers_of_an_exported_network():
    model, x = NETWORKS["two layers"]().eval(), torch.randn(3, 5, 4)
    made, method = FORMS["unflattened"](model, x), METHODS["epsilon"]
    inner, expected = (method.explain(each, x, 1, layers="out.0").layers["out.0"] for each in (made, model))
    assert_equal(inner[0], expected[0], 1e-4)


def test_a_transformer_that_runs_as_a_whole_is_refused():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1).eval()
    with pytest.raises(UnexplainableError, match="Explain the Python module, not its TorchScript form"):
        LRP(Epsilon(1e-3))(torch.jit.script(model), torch.randn(2, 5, 4), lambda y: y[:, 0, 0])
