"""The lesson runs from its first to its last cell, and shows what it says."""

import re

import nbclient
import nbformat
import pytest
from paths import ROOT


@pytest.mark.filterwarnings("ignore")
def test_the_lesson(tmp_path):
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "lesson.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # numbers are made where it is run
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert float(re.search(r"accuracy on 200 test sequences: (\S+)", said)[1]) > 0.8
    assert float(re.search(r"DeepTaylor +(\S+)", said)[1]) > 0.816  # better than an even spread
    assert float(re.search(r"correlation of relevance and worth: (\S+)", said)[1]) > 0.9
