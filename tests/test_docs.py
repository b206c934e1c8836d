"""The code in the documentation runs as it stands there."""

import re

import pytest
import torch
from paths import ROOT
from torch import nn

from rnnx_lightning import explain

PAGE = (ROOT / "docs" / "explaining.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def test_ten_lines_explain_ones_own_network():
    names = {}
    exec(BLOCKS[0], names)
    assert names["relevance"].shape == (8, 90, 28)
    names |= {"x": torch.rand(2, 9, 28), "target": 1, "t": 4}
    exec(BLOCKS[1], names)
    assert len(names["explanation"].layers["lstm.cells.0.candidate"]) == 9
    names |= vars(explain) | {"nn": nn}
    exec(BLOCKS[2], names)


def test_every_public_method_is_documented():
    for name in explain.__all__:
        if isinstance(getattr(explain, name), type) and issubclass(getattr(explain, name), explain.Attributor):
            assert name == "Attributor" or name in PAGE


@pytest.mark.parametrize("document", ["README.md", "docs/explaining.md"])
def test_links_and_pictures_exist(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or ((ROOT / document).parent / target).exists(), target
