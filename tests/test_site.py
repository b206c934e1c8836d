"""The pages are built without a network, and no link leads nowhere."""

import re
import subprocess
import sys

from paths import ROOT


def test_the_site_is_built(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, env={"PATH": "", "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    pages = {page.name: page.read_text() for page in tmp_path.glob("*.html")}
    assert {"index.html", "idea.html", "api.html", "bibliography.html"} <= pages.keys()
    for name, page in pages.items():
        cited = re.findall(r"\[(?:[A-Z]+[a-z]*\+?\d\d|[A-Z]\w+ et al\., \d{4})\]", page)
        assert name == "bibliography.html" or not cited, f"{name}: {cited} are not in docs/includes/citations.md"
        loaded = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', page)
        assert not loaded, f"{name} loads {loaded}"


def test_each_citation_has_an_entry():
    known = re.findall(r'<a id="(\w+)">', (ROOT / "docs" / "bibliography.md").read_text())
    linked = re.findall(r"bibliography.md#(\w+)", (ROOT / "docs" / "includes" / "citations.md").read_text())
    assert sorted(known) == sorted(linked)
