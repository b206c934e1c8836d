import pytest
from jsonargparse import ArgumentParser
from torchmetrics import Metric

from rnnx_lightning.mistakes import RENAMED, UsageError, at_heart, did_you_mean, parse


@pytest.fixture
def parser():
    parser = ArgumentParser(prog="rnnx it", exit_on_error=False)
    parser.add_argument("--data.batch_size", type=int)
    parser.add_argument("--config", action="config")
    parser.add_argument("--scores", type=dict[str, Metric])
    return parser


def refused(parser, *arguments):
    with pytest.raises(UsageError) as raised:
        parse(parser, list(arguments))
    *lines, last = str(raised.value).splitlines()
    assert last == "(rnnx it --help shows all options)"
    return lines


@pytest.mark.parametrize("name", [name for name in RENAMED if "." in name])
def test_what_was_renamed_is_told_in_one_line(name, parser):
    assert refused(parser, f"--{name}=1") == [f"{name} is now {RENAMED[name]}"]
    assert refused(parser, f"--{name}", "1") == [f"{name} is now {RENAMED[name]}"]


def test_a_metric_of_an_old_callbacks_name_is_a_metric(parser):
    said = refused(parser, "--scores.A=torchmetrics.CosineSimilarity", "--scores.A.no=1")
    assert "Option 'no' is not accepted" in "".join(said)
    assert "is now" not in "".join(said)


def test_the_option_that_was_meant_is_named_and_the_files(parser, tmp_path):
    (tmp_path / "a.yaml").write_text("data:\n  batch_sise: 3\n")
    for given in (["--config", str(tmp_path / "a.yaml")], [f"--config={tmp_path / 'a.yaml'}"]):
        said = refused(parser, *given)
        assert "--data.batch_sise: Did you mean --data.batch_size?" in said
        assert said[-1] == f"config files, in this order: {tmp_path / 'a.yaml'}"
    assert refused(parser, "--zzz") == ["unrecognized arguments: --zzz"]


def test_nothing_is_meant_where_nothing_is_alike():
    assert did_you_mean("fitt", ["fit", "test"]) == " Did you mean fit?"
    assert did_you_mean("zzz", ["fit", "test"]) == ""


def test_what_a_class_says_is_told_without_the_types_it_could_have_been():
    inner, plain = ValueError("sequences=0"), ValueError("said so")
    outer = ValueError("Does not validate against any of the Union subtypes\nSubtypes: ...")
    outer.__cause__, plain.__cause__ = inner, KeyError("x")
    assert at_heart(outer) is inner
    assert at_heart(plain) is plain
