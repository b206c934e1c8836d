import inspect

import pytest

from rnnx_lightning.commands.explain import explain
from rnnx_lightning.commands.signature import run_function
from rnnx_lightning.commands.view import view
from rnnx_lightning.explain import LRP, Attributor
from rnnx_lightning.mistakes import UsageError


def given(
    numbers: list[int] | None = None,
    word: str = "a",
    share: float | None = None,
    methods: dict[str, Attributor] | None = None,
):
    """What came, in 100 % of cases.

    Args:
        numbers: Several.
        word: One.
        share: 0 to 50 %.
        methods: By name.

    Returns:
        All.
    """
    return numbers, word, share, methods


def run(*arguments):
    return run_function(given, list(arguments), "rnnx given", "rnnx given [options]")


def test_the_command_line_is_the_call():
    assert run() == (None, "a", None, None)
    assert run("--numbers", "3", "5", "--word=b", "--share", "0.5") == ([3, 5], "b", 0.5, None)
    (method,) = run("--methods.A", "LRP", "--methods.A.alpha", "2", "--methods.A.beta=1")[3].values()
    assert isinstance(method, LRP)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--numbers", "three"], ["numbers", "three"]),
        (["--wor", "b"], ["--wor"]),
        (["--share", "half"], ["share", "half"]),
        (["--methods.A", "Linear"], ["methods", "Linear"]),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(UsageError, match="rnnx given --help shows all options") as raised:
        run(*arguments)
    assert all(word in str(raised.value) for word in words)


@pytest.mark.parametrize("function", [explain, view, given])
def test_help_is_short_and_describes_every_option(function, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_function(function, ["--help"], "rnnx it", "rnnx it [options]")
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for name, parameter in inspect.signature(function).parameters.items():
        text = function.__doc__.partition(f" {name}: ")[2].split(".")[0]
        assert " ".join(text.split()) in " ".join(said.split()), name
        assert f"--{name}" in said
        assert parameter.default is None or f"default: {parameter.default}" in " ".join(said.split())
    assert "null" not in said
    assert "torchmetrics" not in said
    assert len(said.splitlines()) < 60
