"""The command line, for mistakes."""

import logging

import pytest

from rnnx_lightning import __main__


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    """Runs the command line here and returns what it said; it must have failed, cleanly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # loggers keep the streams of the test before
    monkeypatch.delenv("RNNX_DEBUG", raising=False)

    def run(arguments):
        with pytest.raises(SystemExit) as stopped:
            __main__.main(list(map(str, arguments)))
        said = capsys.readouterr().err
        assert stopped.value.code not in (0, None)
        assert "Traceback" not in said
        return said

    return run
