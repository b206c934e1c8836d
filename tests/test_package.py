"""What travels with the package."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from paths import ROOT

from rnnx_lightning.configs_by_name import find_config, known_configs, named_configs

HERE = sorted(
    str(path.relative_to(ROOT / "configs").with_suffix("")) for path in (ROOT / "configs").rglob("*.yaml")
)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Built of a copy, as building leaves files beside what is built."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    kept = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT / "rnnx_lightning", source / "rnnx_lightning", symlinks=True, ignore=kept)
    shutil.copytree(ROOT / "configs", source / "configs")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_code_configs_and_templates(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"rnnx_lightning/configs/{name}.yaml" for name in HERE} <= names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "rnnx_lightning").rglob("*.py")}
    assert modules <= names
    assert len([name for name in names if name.endswith(".safetensors")]) == 6
    assert {"rnnx_lightning/py.typed", "rnnx_lightning/compare/templates/report.html"} <= names
    assert {f"rnnx_lightning/view/templates/view.{kind}" for kind in ("html", "css", "js")} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]


def test_the_wheel_trains_from_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import rnnx_lightning.__main__ as m; print(m.__file__); m.main()"
    options = ["fit", "--config", "convdeep", "--data.dataset", "digits", "--trainer.fast_dev_run", "true"]
    done = subprocess.run([sys.executable, "-c", code, *options], cwd=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(site))


def test_configs_go_by_name_and_paths_stay_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert known_configs() == HERE
    for given in ("convdeep", "configs/convdeep.yaml", "convdeep.yaml", "configs/convdeep"):
        assert find_config(given).endswith("rnnx_lightning/configs/convdeep.yaml")
    (tmp_path / "convdeep").write_text("mine")
    assert find_config("convdeep") == "convdeep"
    for given in ("nowhere/mine.yaml", '{"model": 1}'):
        assert find_config(given) == given
    with pytest.raises(
        ValueError, match=r"no configuration 'rlstn', neither .* shallow, stationary. Did you mean rlstm"
    ):
        find_config("rlstn")
    found = named_configs(["--config", "deep", "--config=published/recipe", "--data.dataset", "deep"])
    assert [word.rpartition("configs/")[2] for word in found] == [
        "--config",
        "deep.yaml",
        "published/recipe.yaml",
        "--data.dataset",
        "deep",
    ]


def test_a_study_goes_by_name(rnnx):
    done = rnnx("compare", "--config", "compare/experiment1", "--jobs", "0", check=False)
    assert "jobs=0 must be at least 1" in done.stderr
    assert rnnx("compare", "--config", "compare/experiment1", "--print_config").stdout


def test_doctor_says_what_there_is(rnnx, tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    done = rnnx("doctor", RNNX_DATA_DIR=str(tmp_path), COLUMNS="300")
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "torch" in rows
    assert str(tmp_path) in rows["data"]
    assert "RNNX_DATA_DIR" in rows["data"]
    assert "fetched when first used: train-images-idx3-ubyte" in rows["mnist"]
    assert "complete" in rows["digits"]
    assert "All required packages are installed" in done.stdout


def test_doctor_looks_for_all_dependencies():
    from rnnx_lightning.commands import doctor

    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(doctor.NEEDED) == sorted(re.match(r"[\w-]+", line)[0] for line in asked)


def test_doctor_fails_where_something_is_missing(monkeypatch, capsys):
    from rnnx_lightning.commands import doctor

    monkeypatch.setattr(doctor, "NEEDED", ("torch", "no_such_package"))
    with pytest.raises(SystemExit) as stop:
        doctor.main([])
    assert stop.value.code == 1
    assert "pip install no_such_package" in capsys.readouterr().out
