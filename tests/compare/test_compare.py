"""A two-network, two-seed comparison from the command line, killed in the middle and taken up again."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml
from limits import TIME_LIMIT_S
from paths import ROOT

from rnnx_lightning.compare.report import write_report
from rnnx_lightning.compare.runner import Outcome
from rnnx_lightning.compare.study import Study

STUDY = """
name: small
networks:
  Deep: [{root}/configs/deep.yaml]
  R-LSTM: [{root}/configs/rlstm.yaml]

datasets: [digits]
seeds: [0, 1]
gallery: 2
options: [--trainer.max_epochs=2, --data.batch_size=100]
"""


def command(folder):
    return [sys.executable, "-m", "rnnx_lightning", "compare", "--config", str(folder / "study.yaml")]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    (folder / "study.yaml").write_text(STUDY.format(root=ROOT))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "150"}
    first = subprocess.Popen(command(folder), cwd=folder, env=environment, start_new_session=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    runs = folder / "logs" / "compare" / "runs"
    deadline = time.monotonic() + TIME_LIMIT_S
    while len(list(runs.glob("*/results.json"))) < 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    while len(list(runs.glob("*/checkpoints/last.ckpt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    finished = {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/results.json")}
    assert 1 <= len(finished) < 4
    done = subprocess.run(command(folder), cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=TIME_LIMIT_S)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, finished, done.stdout


def test_finished_runs_are_not_run_again(compared):
    folder, finished, output = compared
    runs = folder / "logs" / "compare" / "runs"
    assert len(list(runs.glob("*/results.json"))) == 4
    for name, when in finished.items():
        assert (runs / name / "results.json").stat().st_mtime_ns == when
    assert output.count(": was done") == len(finished)
    assert len(re.findall(r": done", output)) == 4 - len(finished)


def test_the_summary_is_what_the_results_say(compared):
    folder = compared[0] / "logs" / "compare" / "small"
    results = pd.read_csv(folder / "results.csv")
    assert len(results) == 4 * 4
    lines = (folder / "summary.md").read_text().splitlines()
    for (network, method), group in results.groupby(["network", "method"]):
        assert any(
            f"| {network} " in line and f"| {method} " in line and f"{group['cosine'].mean():.4f}" in line
            for line in lines
        )
    for name in ("cosine.png", "cosine.svg", "heatmaps-digits-Deep.png", "heatmaps-digits-R-LSTM.png"):
        assert (folder / name).stat().st_size > 1000


def test_the_report_escapes_what_it_shows(compared, monkeypatch):
    """What a run printed, and what stands in its config, is text."""
    monkeypatch.chdir(compared[0])
    root = compared[0] / "logs" / "compare"
    study = Study(**{**yaml.safe_load(STUDY.format(root=ROOT)), "name": "escaped"})
    runs = study.runs(root)
    config = runs[0].folder / "config.yaml"
    before = config.read_text()
    config.write_text(before + "# <script>alert('config')</script>\n")
    try:
        report = write_report(study, runs, [Outcome(runs[1], "failed", "<img src=x onerror=alert('log')>")], root)
    finally:
        config.write_text(before)
    page = report.read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert" in page
    assert "&lt;img src=x" in page


def test_the_report_needs_no_server_and_has_no_errors(compared, tmp_path):
    report = compared[0] / "logs" / "compare" / "small" / "report.html"
    page = report.read_text()
    assert "http://" not in page
    assert "https://" not in page
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    # The page writes into its own title what went wrong, and whether sorting works.
    probe = """<script>
    window.addEventListener("error", e => document.title += " ERROR " + e.message);
    </script>"""
    check = """<script>
    const heading = [...document.querySelectorAll("th")].find(h => h.textContent === "mean");
    heading.click();
    const place = [...heading.parentNode.children].indexOf(heading);
    const shown = [...heading.closest("table").tBodies[0].rows].map(r => Number(r.children[place].textContent));
    document.title += shown.every((v, i) => i === 0 || shown[i - 1] <= v) ? " SORTED" : " UNSORTED";
    </script></body>"""
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("<head>", "<head>" + probe).replace("</body>", check))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", probed.as_uri()],
        capture_output=True, text=True, timeout=TIME_LIMIT_S,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)[1]
    assert "SORTED" in title
    assert "UNSORTED" not in title
    assert "ERROR" not in title
    assert "CONSOLE" not in done.stderr


def test_failed_runs_are_reported_and_do_not_stop_the_others(tmp_path):
    (tmp_path / "broken.yaml").write_text("model:\n  network: Deep\n  classes: 10\noptimizer:\n  lr: -1.0\n")
    (tmp_path / "study.yaml").write_text(
        f"name: part\nnetworks:\n  Broken: [broken.yaml]\n  Deep: [{ROOT}/configs/deep.yaml]\ndatasets: [digits]\n"
        "gallery: 1\noptions: [--trainer.max_epochs=1, --data.batch_size=100]\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "150"}
    done = subprocess.run(command(tmp_path), cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=TIME_LIMIT_S)  # fmt: skip
    assert done.returncode == 1
    assert "1 of 2 runs failed" in done.stderr
    assert "optimizer.lr=-1.0 must be positive" in done.stderr
    assert "Traceback" not in done.stderr
    summary = (tmp_path / "logs/compare/part/summary.md").read_text()
    assert "## Failed runs" in summary
    assert "| Deep" in summary


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGTERM, 1), (signal.SIGTERM, 2), (signal.SIGINT, 2)])
def test_a_stopped_study_stops_its_trainings_and_goes_on(number, jobs, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY.format(root=ROOT).replace("max_epochs=2", "max_epochs=10000"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "150"}
    study = subprocess.Popen([*command(tmp_path), "--jobs", str(jobs)], cwd=tmp_path, env=environment, text=True,
                             start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    runs = tmp_path / "logs" / "compare" / "runs"
    deadline = time.monotonic() + TIME_LIMIT_S
    while len(list(runs.glob("*/checkpoints/last.ckpt"))) < jobs and time.monotonic() < deadline:
        time.sleep(0.2)
    if number == signal.SIGINT:
        os.killpg(study.pid, number)  # as a terminal does
    else:
        study.send_signal(number)
    try:
        _, errors = study.communicate(timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(study.pid, signal.SIGKILL)  # ten thousand epochs
        raise
    assert study.returncode == 128 + number
    assert "stopped; trainings have saved what they need, and the same command goes on with them" in errors
    assert "Traceback" not in errors
    logs = list(runs.glob("*/run.log"))
    for log in logs:  # a lock is free when its training has ended
        with (log.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
    assert sum("stopped by SIG" in log.read_text() for log in logs) == jobs
