"""The `rnnx` command. Only the commands import torch, so that --help and --version answer at once."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from rnnx_lightning import __version__
from rnnx_lightning.configs_by_name import named_configs
from rnnx_lightning.mistakes import UsageError, at_heart, did_you_mean
from rnnx_lightning.process import denormals_flushed, importing, keep_freed_memory, look_for_no_driver

OWN = ("explain", "view", "compare", "doctor")  # the others are LightningCLI's
COMMANDS = ("fit", "validate", "test", "predict", *OWN)
HELP = """\
rnnx: train recurrent networks on majority-sample sequences and measure how explainable they are.

usage: rnnx COMMAND [options]

commands:
  fit         train, validate, and test the best checkpoint    rnnx fit --config convdeep
  validate    evaluate on the validation sequences             rnnx validate --config ... --ckpt_path ...
  test        evaluate on the test sequences                   rnnx test --config ... --ckpt_path ...
  explain     draw heatmaps of test sequences                  rnnx explain --pretrained rlstm --index 7
  view        write an interactive page of explanations        rnnx view --pretrained rlstm evidence
  compare     train many networks and compare them             rnnx compare --config compare/experiment1
  predict     write the predictions of the test sequences      rnnx predict --config ... --ckpt_path ...
  doctor      list what is installed and what is missing       rnnx doctor

  rnnx COMMAND --help            all options of a command
  rnnx fit --print_config        the configuration that would be used
  rnnx --version                 the version

--config takes a file, or the name of one that comes with rnnx. Several may be given;
later ones override earlier ones, and options on the command line override all.
"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. If something is wrong, exit with one message and a code that is not 0."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if arguments[0] == "--version":
        print(f"rnnx {__version__}")
        return
    command, *rest = arguments
    if command not in COMMANDS:
        message = f"there is no command {command!r}: choose from {', '.join(COMMANDS)}."
        print(f"rnnx: error: {message}{did_you_mean(command, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    keep_freed_memory()
    sys.path.append(os.getcwd())  # the user's own networks and methods are found here
    try:
        with importing():
            module = import_module(
                f"rnnx_lightning.commands.{command}" if command in OWN else "rnnx_lightning.cli"
            )
        look_for_no_driver()
        with denormals_flushed(), _warnings_as_messages():
            rest = named_configs(rest)
            module.main(rest if command in OWN else [command, *rest])
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("RNNX_DEBUG") == "1":
            raise
        if isinstance(error, UsageError):
            print(f"rnnx: error: {error}", file=sys.stderr)
            sys.exit(2)
        if hasattr(error, "exit_code"):  # a run that was asked to stop
            print(f"rnnx: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        error = at_heart(error)
        message = str(error).strip() or type(error).__name__
        print(
            f"rnnx: error: {message}\n{_line_of_the_user(error)}(set RNNX_DEBUG=1 to see the traceback)",
            file=sys.stderr,
        )
        sys.exit(1)


@contextmanager
def _warnings_as_messages() -> Iterator[None]:
    """Show our warnings without a line of code: on the command line, it would be the one that starts `rnnx`."""
    before = warnings.formatwarning

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        ours = category.__module__.startswith("rnnx_lightning.")
        return f"rnnx: warning: {message}\n" if ours else before(message, category, filename, lineno, line)

    warnings.formatwarning = shown
    try:
        yield
    finally:
        warnings.formatwarning = before


def _line_of_the_user(error: Exception) -> str:
    """The last line that ran in the user's own files, for errors in their networks and methods; else empty."""
    import sysconfig
    import traceback

    here, installed = Path.cwd(), sysconfig.get_paths()
    not_theirs = (Path(__file__).parent, installed["stdlib"], installed["purelib"])
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(here) and not any(path.is_relative_to(folder) for folder in not_theirs):
            return f"in {path.relative_to(here)}, line {frame.lineno}: {frame.line}\n"
    return ""


if __name__ == "__main__":
    main()
