"""The page says what the methods give, and a browser shows what the page says."""

import base64
import gzip
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from limits import TIME_LIMIT_S
from torch import nn

from rnnx_lightning.architectures import RLSTM, ConvDeep, Evidence
from rnnx_lightning.commands.view import main, view
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.explain import LRP, Attributor, DeepTaylor, Sensitivity
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.metrics.functional import majority_cosine_similarity
from rnnx_lightning.pretrained import load_pretrained
from rnnx_lightning.view import Named, recorded, write_page
from rnnx_lightning.view.layers import inner_layers, over_time

ROWS = [7, 8, 3]
MINUS = "\N{MINUS SIGN}"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def numbers(part, shape):
    return part["scale"] * np.frombuffer(base64.b64decode(part["values"]), dtype=np.int8).reshape(shape).astype(
        float
    )


def held(page):
    """The data in a page."""
    text = re.search(r'<script id="data" type="text/plain">(.*?)</script>', page.read_text())[1]
    return json.loads(gzip.decompress(base64.b64decode(text)))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return view(
        pretrained=["rlstm-digits", "evidence-digits"],
        index=ROWS,
        out=str(tmp_path_factory.mktemp("view") / "page.html"),
    )


@pytest.fixture(scope="module")
def record(page):
    return held(page)


def test_the_page_holds_what_the_methods_give(record):
    data = MajoritySequences("digits")
    data.setup()
    image, label, majority = data.sequences("test", ROWS)
    assert record["classes"] == data.class_names
    for row, sequence in enumerate(record["sequences"]):
        grey = np.frombuffer(base64.b64decode(sequence["image"]), dtype=np.uint8).reshape(28, 84)
        np.testing.assert_allclose(grey, ((image[row, 0] + 1) * 127.5).numpy(), atol=1e-3)
        assert (sequence["number"], sequence["label"], sequence["majority"]) == (
            ROWS[row],
            int(label[row]),
            majority[row].tolist(),
        )
    for name, results in zip(("rlstm-digits", "evidence-digits"), record["results"], strict=True):
        network = load_pretrained(name).model.network
        logits = network(image)
        for method, attributor in published_methods().items():
            relevance = attributor(network, image, label)
            cosine = majority_cosine_similarity(relevance, majority)
            for row, result in enumerate(results):
                assert result["prediction"] == int(logits[row].argmax())
                np.testing.assert_allclose(result["logits"], logits[row].detach(), rtol=1e-4, atol=1e-5)
                found = result["methods"][method]
                values = numbers(found, (28, 84))
                most = float(relevance[row].abs().max())
                np.testing.assert_allclose(values, relevance[row, 0].numpy(), atol=most / 250)
                sums = relevance[row].unflatten(-1, (3, -1)).sum((0, 1, 3))
                np.testing.assert_allclose(found["per_sample"], sums, rtol=1e-4, atol=most * 1e-4)
                assert found["cosine"] == pytest.approx(float(cosine[row]), abs=1e-5)


def test_relevance_on_its_way_adds_up(record):
    """The R-LSTM's memory hands everything on; of Evidence all of it goes through the evidence of all steps."""
    for network, layer, each in ((0, "cell.output", False), (1, "cell.evidence", True)):
        for result in record["results"][network]:
            found = {one["name"]: one for one in result["methods"]["DeepTaylor"]["layers"]}[layer]
            logit = result["logits"][record["sequences"][record["results"][network].index(result)]["label"]]
            last = sum(found["sums"]) if each else found["sums"][-1]
            assert last == pytest.approx(max(logit, 0), rel=1e-3)
            strips = numbers(found, (found["steps"], found["units"]))
            np.testing.assert_allclose(
                strips.sum(1), found["sums"], atol=found["scale"] * found["units"] / 2 + 1e-6
            )
        assert result["methods"]["Sensitivity"]["layers"] == []


@pytest.mark.parametrize("make", [RLSTM, Evidence, ConvDeep])
def test_layers_over_time_are_those_of_explain(make):
    network, image = make().eval(), torch.rand(3, 1, 28, 84) * 2 - 1
    names = inner_layers(network, image)
    explanation = DeepTaylor().explain(network, image, lambda logits: logits[:, 1] + 50, layers=names)
    parts = over_time(explanation.layers, 3)
    assert "front.2" in names or "front.1" in names
    for name, part in parts.items():
        calls = explanation.layers[name]
        whole = sum(
            float(call[1].sum()) if len(call) == 3 else float(call.unflatten(0, (3, -1))[1].sum())
            for call in calls
        )
        assert part.shape[0] == 3
        assert part.shape[1] in (11, 12)
        assert float(part[1].sum()) == pytest.approx(whole, rel=1e-5)


def test_fifty_sequences_of_two_networks_are_small(tmp_path):
    out = view(pretrained=["rlstm-digits", "evidence-digits"], sequences=50, out=str(tmp_path / "page.html"))
    assert out.stat().st_size < 2e6


def test_names_are_escaped(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 84, 2))
    image, majority = torch.rand(1, 1, 28, 84), torch.tensor([[True, True, False]])
    methods = {"<img src=x>": Sensitivity(), "L</script>": LRP(start="logit")}
    record = recorded(
        [Named("</script><b>", network)], methods, image, torch.tensor([1]), majority, ["<i>", "'\"&"], [0]
    )
    text = write_page(record, tmp_path / "page.html").read_text()
    assert text.count("</script>") == 3
    assert held(tmp_path / "page.html")["methods"] == list(methods)
    assert "<img" not in text
    assert "<b>" not in text
    assert "<i>" not in text


def test_nothing_is_fetched(page):
    text = page.read_text()
    assert not re.findall(r"https?://[^\s\"')]+", text)
    assert not re.search(r"<(script|link|img)[^>]* (src|href)=\"(?!data:)", text)


def shown(page, fragment):
    """The page as a browser has it, and what the browser complained of."""
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
    )
    done = subprocess.run(
        [
            BROWSER,
            *flags,
            f"--user-data-dir={page.parent / 'profile'}",
            "--dump-dom",
            f"{page.as_uri()}#{fragment}",
        ],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("a", "b"), [((0, 3), (1, 2)), ((1, 0), (0, 1))])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_the_numbers_of_the_json(page, record, a, b, theme):
    s, x, y = 1, 61, 9
    fragment = f"s={s}&x={x}&y={y}&a={a[0]}.{a[1]}&b={b[0]}.{b[1]}&theme={theme}"
    dom, complaints = shown(page, fragment)
    assert not complaints
    assert f'data-theme="{theme}"' in dom
    panels = re.findall(r"<section>(.*?)</section>", dom.partition("<template")[0], re.S)
    for (network, method), panel in zip((a, b), panels, strict=True):
        found = record["results"][network][s]["methods"][record["methods"][method]]
        values = numbers(found, (28, 84))
        said = {kind: float(text) for kind, text in re.findall(r'<b data-kind="(\w+)">([^<]+)</b>', panel)}
        first = x // 7 * 7
        expected = {
            "pixel": values[y, x],
            "sample": found["per_sample"][x // 28],
            "step": values[:, first : first + 7].sum(),
        }
        assert said == pytest.approx(expected, rel=6e-4)
        assert float(re.search(r"cosine ([-\d.e]+)", panel)[1]) == pytest.approx(found["cosine"], rel=6e-4)
        charts, _, maps = panel.partition('class="layers"')
        numbers_of_bars = re.search(r'class="mark-text role-mark[^"]*"(.*?)</g>', charts, re.S)[1]
        bars = [
            float(text.replace(MINUS, "-")) for text in re.findall(r"<text[^>]*>([^<]+)</text>", numbers_of_bars)
        ]
        assert bars == pytest.approx(found["per_sample"], rel=6e-4)
        assert maps.count("steps from top to bottom") >= len(found["layers"])
        cells = re.findall(r'aria-label="step (\d+), column (\d+): ([^"]+)"', maps)
        expected = [numbers(layer, (layer["steps"], layer["units"])) for layer in found["layers"]]
        assert [float(text) for *_, text in cells] == pytest.approx(
            [value for layer in expected for value in layer.flat], rel=6e-4
        )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_keyboard_does_what_the_mouse_does(page, record):
    keys = ["n", "n", "p", "1", "4", "ArrowLeft", "ArrowLeft", "ArrowDown", "t", "t"]
    press = f"for (const key of {keys}) document.dispatchEvent(new KeyboardEvent('keydown', {{key}}));"
    later = f"setTimeout(() => {{ {press} document.title = location.hash; }}, 1000)"  # the page is unpacked first
    pressed = page.with_name("pressed.html")
    pressed.write_text(page.read_text() + f"<script>{later}</script>")
    dom, complaints = shown(pressed, "s=0&x=40&y=5&a=0.3&b=1.2&theme=light")
    assert not complaints
    assert "<title>#s=1&amp;x=38&amp;y=6&amp;a=0.0&amp;b=0.2</title>" in dom
    assert 'data-theme="light"' in dom


@pytest.mark.parametrize("out", ["a", "a.html"])
def test_the_command_takes_methods_and_a_name(out, tmp_path, capsys):
    main(
        [
            "--pretrained",
            "rlstm-digits",
            "--index",
            "1",
            "--out",
            str(tmp_path / out),
            "--methods.Mine=Sensitivity",
        ]
    )
    assert held(tmp_path / "a.html")["methods"] == ["Mine"]
    assert "open it in a browser" in capsys.readouterr().out


def test_relevance_with_nan_is_not_shown():
    class Broken(Attributor):
        def _relevance(self, model, x, target):
            return torch.full_like(x, torch.nan)

    picture, majority = torch.zeros(1, 1, 28, 84), torch.tensor([[True, True, False]])
    network = Named("Flat", nn.Sequential(nn.Flatten(), nn.Linear(28 * 84, 2)))
    with pytest.raises(ValueError, match="relevance by broken is NaN or infinite"):
        recorded([network], {"broken": Broken()}, picture, torch.tensor([1]), majority, ["a", "b"], [0])


def test_bad_requests_are_refused(tmp_path):
    for arguments, words in [
        ([], "give either --ckpt_path, or --pretrained"),
        (["--pretrained", "rlstm-digits", "evidence"], "trained with different dataset: digits, mnist"),
        (["--pretrained", "rlstm-digits", "--sequences", "0"], "sequences=0 must be at least 1"),
        (["--pretrained", "rlstm-digits", "--index", "360"], "there is no sequence 360"),
    ]:
        with pytest.raises(ValueError, match=words):
            main([*arguments, "--out", str(tmp_path / "page.html")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("option", "number"), [("samples", 7), ("majority_size", 4), ("margin", 7)])
def test_networks_of_different_tasks_are_not_shown_together(option, number, monkeypatch, tmp_path):
    task = {"dataset": "digits", "samples": 5, "majority_size": 3, "margin": 0}
    tasks = {"one": MajoritySequences(**task), "other": MajoritySequences(**{**task, option: number})}
    monkeypatch.setattr(
        "rnnx_lightning.commands.view.load_trained", lambda path, name, folder: (None, tasks[name])
    )
    with pytest.raises(ValueError, match=f"trained with different {option}: "):
        view(pretrained=["one", "other"], out=str(tmp_path / "page"))
