import pytest

from rnnx_lightning.compare.study import Study, StudyError


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text("model:\n  network: Deep\n")
    return path


def test_every_network_data_set_and_seed_is_a_run(config, tmp_path):
    study = Study("s", {"A": [str(config)], "B": [str(config)]}, ["mnist", "digits"], [0, 1, 2])
    runs = study.runs(tmp_path)
    assert len(runs) == len({run.folder for run in runs}) == 12
    assert "--seed_everything=2" in runs[-1].arguments
    assert "--data.seed=2" in runs[-1].arguments


def test_a_folder_of_pictures_goes_by_its_own_name(config, tmp_path):
    for folder in ("letters", "other/letters"):
        (tmp_path / folder).mkdir(parents=True)
    letters, others = str(tmp_path / "letters"), str(tmp_path / "other" / "letters")
    (run,) = Study("s", {"A": [str(config)]}, [letters]).runs(tmp_path)
    assert run.dataset == "letters"
    assert f"--data.dataset={letters}" in run.arguments
    with pytest.raises(StudyError, match="two data sets have the name 'letters'"):
        Study("s", {"A": [str(config)]}, [letters, others])


@pytest.mark.parametrize("options", [{"seeds": [0, 1, 0]}, {"folds": 10, "chosen_folds": [0, 0]}])
def test_a_run_counts_once(options, config):
    with pytest.raises(StudyError, match="has 0 more than once"):
        Study("s", {"A": [str(config)]}, **options)


def test_folds_replace_seeds(config, tmp_path):
    runs = Study("s", {"A": [str(config)]}, folds=10).runs(tmp_path)
    assert [run.repetition for run in runs] == list(range(10))
    assert "--data.folds=10" in runs[0].arguments
    assert "--data.fold=9" in runs[9].arguments
    assert "--seed_everything=9" in runs[9].arguments
    assert not any(argument.startswith("--data.seed") for argument in runs[9].arguments)


def test_some_of_the_folds_are_the_same_runs(config, tmp_path):
    all_runs = Study("s", {"A": [str(config)]}, folds=10).runs(tmp_path)
    some = Study("s", {"A": [str(config)]}, folds=10, chosen_folds=[2, 5]).runs(tmp_path)
    assert some == [all_runs[2], all_runs[5]]


def test_two_studies_share_a_run_until_its_config_changes(config, tmp_path):
    def folder(name, **changes):
        return Study(name, {"A": [str(config)]}, **changes).runs(tmp_path)[0].folder

    first = folder("one")
    assert folder("two") == first
    assert folder("one", options=["--trainer.max_epochs=1"]) != first
    config.write_text("model:\n  network: Shallow\n")
    assert folder("one") != first


def test_an_interrupted_run_goes_on(config, tmp_path):
    run = Study("s", {"A": [str(config)]}).runs(tmp_path)[0]
    assert not any(part.startswith("--ckpt_path") for part in run.command)
    last = run.folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    assert run.command[-1] == f"--ckpt_path={last}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../up"}, "is not a valid name"),
        ({"name": ".."}, "is not a valid name"),
        ({"networks": {"a/b": []}}, "is not a valid name"),
        ({"networks": {"A": ["nowhere.yaml"]}}, "nowhere.yaml"),
        ({"networks": {}}, "at least one network"),
        ({"seeds": []}, "one seed"),
        ({"folds": 1}, "folds=1"),
        ({"folds": 3, "chosen_folds": [3]}, r"chosen_folds=\[3\] are not among the 3 folds"),
        ({"folds": 3, "chosen_folds": []}, "chosen_folds"),
        ({"chosen_folds": [0]}, "among the no folds"),
    ],
)
def test_impossible_studies_are_refused(changes, words, config):
    with pytest.raises(StudyError, match=words):
        Study(**{"name": "s", "networks": {"A": [str(config)]}, **changes})
