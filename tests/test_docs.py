"""The code in the documentation runs as it stands there."""

import importlib
import json
import re
import runpy

import pytest
import torch
import yaml
from paths import ROOT
from torch import nn

from rnnx_lightning import architectures, explain, metrics

PAGE = (ROOT / "docs" / "explaining.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def test_ten_lines_explain_ones_own_network():
    names = {}
    network, texts, layers, rules = BLOCKS
    exec(network, names)
    assert names["relevance"].shape == (8, 90, 28)
    exec(texts, names)
    assert (names["relevance"] != 0).tolist() == [[True, True, True], [True, True, False]]
    names |= {"x": torch.rand(2, 9, 28), "target": 1, "t": 4}
    exec(layers, names)
    assert names["explanation"].layers["lstm"][0].shape == (2, 9, 64)
    names |= vars(explain) | {"nn": nn}
    exec(rules, names)


EXTENDING = (ROOT / "docs" / "extending.md").read_text()
FILES = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", EXTENDING, flags=re.S)


@pytest.fixture
def own_files(tmp_path):
    """The files of docs/extending.md, in a folder."""
    for name, content in FILES:
        (tmp_path / name).write_text(content)
    return tmp_path


def test_a_network_and_a_method_of_ones_own_train_and_explain(own_files, rnnx):
    rnnx(
        *("fit", "--config", "elman.yaml", "--config", "occlusion.yaml", "--data.dataset", "digits"),
        *("--trainer.max_epochs", "1"),
    )
    (run,) = (own_files / "logs").glob("*/version_0")
    results = json.loads((run / "results.json").read_text())["results"]
    assert {"test/cosine/DeepTaylor", "test/cosine/Occlusion"} <= results.keys()
    checkpoint = run / "checkpoints" / "best.ckpt"
    rnnx(
        *("explain", "--ckpt_path", checkpoint, "--methods.Occlusion", "occlusion.Occlusion"),
        *("--methods.Gamma", "LRP", "--methods.Gamma.rules", "Gamma"),
    )
    (entry,) = json.loads((own_files / "explanation.json").read_text())["sequences"]
    assert entry["methods"].keys() == {"Occlusion", "Gamma"}
    assert entry["methods"]["Gamma"]["conservation_error"] < 1e-4
    assert "conservation_error" not in entry["methods"]["Occlusion"]
    assert torch.load(checkpoint, weights_only=True)["state_dict"]["network.read.weight"].shape == (200, 196)


def test_occlusion_of_ones_own_sees_a_linear_network_through(own_files, monkeypatch):
    monkeypatch.syspath_prepend(own_files)
    occlusion = importlib.import_module("occlusion")
    weight = torch.randn(3, 28 * 84)
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 84, 3, bias=False))
    network[1].weight.data = weight
    x = torch.rand(4, 1, 28, 84)
    relevance = occlusion.Occlusion(columns=28)(network, x, 1)
    parts = ((x + 1).flatten(1) * weight[1]).view(4, 28, 3, 28).sum((1, 3))
    torch.testing.assert_close(relevance[:, 0, 5, ::28], parts, rtol=1e-4, atol=1e-3)


def test_a_rule_of_ones_own(own_files, monkeypatch):
    monkeypatch.syspath_prepend(own_files)
    rule = importlib.import_module("magnitude").Magnitude()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7, bias=False), nn.Tanh(), nn.Linear(7, 3, bias=False)).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    logit, hidden = network(x)[:, 1].detach(), network[:2](x).detach()
    last = (hidden * network[2].weight[1].detach()).abs()
    relevance = last / last.sum(1, keepdim=True) * logit[:, None]
    first = (x[:, None] * network[0].weight.detach()).abs()
    relevance = (first / first.sum(2, keepdim=True) * relevance[:, :, None]).sum(1)
    torch.testing.assert_close(explain.LRP(rule, start="logit")(network, x, 1), relevance)


def test_an_operation_of_ones_own(own_files, monkeypatch):
    monkeypatch.syspath_prepend(own_files)
    shrink = importlib.import_module("shrink").shrink
    first, last = nn.Linear(5, 7).double(), nn.Linear(7, 3).double()

    class Shrinking(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return last(self.function(first(x)))

    x = torch.randn(4, 5, dtype=torch.float64)
    known = Shrinking(lambda z: nn.functional.softshrink(z, 0.2))
    method = explain.LRP(explain.Epsilon(0.01))
    torch.testing.assert_close(method(Shrinking(lambda z: shrink(z, 0.2)), x, 1), method(known, x, 1))


def test_a_move_of_ones_own():
    from rnnx_lightning.explain.operations import by_gradient, moving

    @torch.library.custom_op("mine::reversed", mutates_args=())
    def reverse(x: torch.Tensor) -> torch.Tensor:
        return x.flip(-1)

    reverse.register_autograd(lambda context, gradient: gradient.flip(-1))
    explain.register(torch.ops.mine.reversed.default, moving(by_gradient))
    network = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    x = torch.randn(4, 5, dtype=torch.float64)

    def mirrored(z):
        return network[2](reverse(network[1](network[0](z))))

    class Mirrored(nn.Module):
        forward = staticmethod(mirrored)

    relevance = explain.LRP(explain.Epsilon(0.01))(Mirrored(), x, 1)
    network[2].weight.data = network[2].weight.data.flip(1)
    torch.testing.assert_close(relevance, explain.LRP(explain.Epsilon(0.01))(network, x, 1))


def test_the_page_of_operations_is_what_is_known():
    page = importlib.import_module("rnnx_lightning.explain.operations.__main__").page()
    assert (ROOT / "docs" / "operations.md").read_text() == page, "python -m rnnx_lightning.explain.operations"


def test_a_score_of_ones_own(own_files, monkeypatch):
    monkeypatch.syspath_prepend(own_files)
    score = importlib.import_module("concentration").LastSample()
    relevance = torch.zeros(2, 1, 28, 84)
    relevance[..., 56:] = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    relevance[..., :28] = 1
    score.update(relevance, torch.ones(2, 3, dtype=torch.bool))
    assert score.compute() == pytest.approx(0.25)


def test_a_score_of_ones_own_from_yaml(own_files, rnnx):
    """Monitored, in the results and in the table, and from only a checkpoint."""
    options = (
        "--trainer.max_epochs=1",
        "--trainer.check_val_every_n_epoch=1",
        "--checkpoint.monitor=val/last/LRP",
    )
    done = rnnx("fit", "--config", ROOT / "configs/quick.yaml", "--config", "scores.yaml", *options)
    assert re.search(r"method\W+cosine\W+flipping\W+last", done.stdout)
    checkpoint = own_files / "logs/quick+scores/version_0/checkpoints/best.ckpt"
    results = json.loads((checkpoint.parent.parent / "results.json").read_text())["results"]
    rnnx("explain", "--ckpt_path", checkpoint, "--index", *range(50), "--scores.last", "concentration.LastSample")
    explained = json.loads((own_files / "explanation.json").read_text())["scores"]["last"]
    assert explained.keys() == {"Sensitivity", "GuidedBackprop", "DeepTaylor", "LRP"}
    for method, value in explained.items():
        assert value == pytest.approx(results[f"test/last/{method}"], abs=1e-5)
        assert 0 < results[f"test/flipping/{method}"] < 1


@pytest.mark.parametrize(
    ("config", "method", "options"),
    [
        ("relevance_loss", "LRP", ["--model.relevance_loss.weight", "0.1"]),
        ("by_guided_backprop.yaml", "GuidedBackprop", ["--trainer.max_steps", "2"]),
    ],
)
def test_relevance_is_trained(config, method, options, own_files, rnnx):
    options = [
        "--data.dataset",
        "digits",
        "--trainer.max_epochs",
        "1",
        "--trainer.limit_train_batches",
        "2",
        *options,
    ]
    rnnx("fit", "--config", "deep", "--config", config, *options)
    (path,) = own_files.glob("logs/*/version_0/config.yaml")
    loss = yaml.safe_load(path.read_text())["model"]["relevance_loss"]["init_args"]
    assert loss["method"]["class_path"].endswith(f".{method}")
    assert loss["weight"] == (0.1 if method == "LRP" else 1.0)


def test_all_of_it_from_python(own_files, monkeypatch):
    monkeypatch.chdir(own_files)
    names = runpy.run_path("in_python.py")
    assert names["relevance"].shape == (8, 1, 28, 84)


def test_words_are_explained(own_files, capsys):
    names = runpy.run_path(str(own_files / "words.py"))
    assert names["curve"].shape == (1, 5)
    assert "the film is good" in capsys.readouterr().out


def test_captum_is_named_in_yaml(own_files, rnnx):
    rnnx(
        *("fit", "--config", "elman.yaml", "--config", "captum.yaml", "--data.dataset", "digits"),
        *("--trainer.max_epochs", "1"),
    )
    (results,) = own_files.glob("logs/*/version_0/results.json")
    assert "test/cosine/Occlusion" in json.loads(results.read_text())["results"]


def test_quantus_scores_ours(own_files):
    pytest.importorskip("quantus")
    assert len(runpy.run_path(str(own_files / "by_quantus.py"))["scores"]) == 8


def test_every_public_method_is_documented():
    for name in explain.__all__:
        if isinstance(getattr(explain, name), type) and issubclass(getattr(explain, name), explain.Attributor):
            assert name == "Attributor" or name in PAGE


@pytest.mark.parametrize("package", [explain, metrics, architectures])
def test_every_public_name_is_in_the_reference(package):
    page = (ROOT / "docs" / "api.md").read_text()
    assert {name for name in package.__all__ if f"::: {package.__name__}.{name}\n" not in page} == set()


@pytest.mark.parametrize("document", ["README.md", "docs/explaining.md", "docs/extending.md"])
def test_links_and_pictures_exist(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or ((ROOT / document).parent / target).exists(), target


def test_the_pages_of_results_are_made_of_the_numbers():
    made = runpy.run_path(str(ROOT / "docs" / "study" / "results.py"))["pages"]()
    assert made.keys() == {"results.md", "findings.md"}
    for name, text in made.items():
        assert text == (ROOT / "docs" / name).read_text()


def test_the_page_of_evidence_is_made_of_its_numbers():
    import pandas as pd

    study = ROOT / "docs" / "study"
    made = runpy.run_path(str(study / "tables.py"))["page"](pd.read_csv(study / "evidence.csv"))
    assert made == (ROOT / "docs" / "results_evidence.md").read_text()
