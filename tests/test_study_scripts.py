"""The study's scripts: each starts, and one trains."""

import csv
import os
import subprocess
import sys

from limits import TIME_LIMIT_S
from paths import ROOT

STUDY = ROOT / "docs" / "study"


def run(folder, *arguments, **variables):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=TIME_LIMIT_S,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{STUDY}", "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_each_script_finds_what_it_imports(tmp_path):
    names = sorted(path.stem for path in STUDY.glob("*.py"))
    assert "evidence" in names
    run(tmp_path, "-c", f"import {', '.join(names)}")
    assert list(tmp_path.iterdir()) == []  # nothing is done until a script is asked


def test_a_variant_is_trained_and_measured(tmp_path):
    table = tmp_path / "rows.csv"
    places = {"EVIDENCE_OUT": str(table), "EVIDENCE_CHECKPOINTS": str(tmp_path / "checkpoints")}
    tiny = ("task=first_pair", "dataset=digits", "epochs=1", "features=8", "units=4", "count=20")
    run(tmp_path, STUDY / "evidence.py", "Variant", *tiny, **places)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    run(tmp_path, STUDY / "evidence.py", checkpoint, "count=20", **places)  # once more, as it was kept
    first, again = csv.DictReader(table.open())
    assert 0 < float(first["accuracy"]) < 1
    for key in ("accuracy", "LRP", "DTD"):
        assert first[key] == again[key]
