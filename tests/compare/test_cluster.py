"""A study on a local Dask cluster, one of whose workers is killed in the middle."""

import os
import signal
import threading
import time

import pytest
from paths import ROOT

from rnnx_lightning.compare.runner import LOG, run_all
from rnnx_lightning.compare.study import Study, StudyError
from rnnx_lightning.compare.tables import collect

distributed = pytest.importorskip("distributed")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(
        name="cluster",
        networks={"Deep": [str(ROOT / "configs" / "deep.yaml")]},
        datasets=["digits"],
        seeds=[0, 1, 2],
        options=["--trainer.max_epochs=2", "--data.batch_size=50"],
    )
    return study.runs(tmp_path / "logs" / "compare")


def test_no_run_is_lost_or_counted_twice_when_a_worker_is_killed(runs, tmp_path):
    killed = []

    def kill_a_busy_worker(pids):
        while not list(tmp_path.rglob(LOG)):
            time.sleep(0.1)
        time.sleep(3)
        os.kill(pids[0], signal.SIGKILL)
        killed.append(pids[0])

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        pids = [worker.pid for worker in cluster.workers.values()]
        threading.Thread(target=kill_a_busy_worker, args=(pids,), daemon=True).start()
        outcomes = run_all(runs, jobs=2, cluster=cluster.scheduler_address)
    assert killed
    assert sorted(outcome.run.repetition for outcome in outcomes) == [0, 1, 2]
    assert {outcome.state for outcome in outcomes} <= {"done", "was done"}
    results = collect(runs)
    assert results.groupby("method")["repetition"].apply(sorted).map(tuple).unique().tolist() == [(0, 1, 2)]
    for run in runs:
        assert (run.folder / LOG).read_text().count("epoch 2/2") == 1


def test_no_cluster_at_the_address(runs, monkeypatch):
    monkeypatch.setattr("rnnx_lightning.compare.runner.CONNECT_TIMEOUT_S", 1)
    with pytest.raises(StudyError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        run_all(runs, jobs=1, cluster="tcp://127.0.0.1:9")
