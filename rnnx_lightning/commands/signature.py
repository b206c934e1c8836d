"""A function as a command: its signature names the options, its docstring describes them."""

import inspect
import re
from argparse import Action
from collections.abc import Callable
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from rnnx_lightning.mistakes import parse

Result = TypeVar("Result")


class _Help(DefaultHelpFormatter):
    """Leaves out defaults that are None, and the hundred classes of torchmetrics."""

    # argparse has no public method for the help of one option; subclasses override this one, as argparse's own do.
    def _get_help_string(self, action: Action) -> str:
        text = re.sub(r" torchmetrics[\w.]+,", "", super()._get_help_string(action))
        return text.replace(", default: %(default)s", "") if action.default is None else text


def run_function(function: Callable[..., Result], arguments: list[str], prog: str, usage: str) -> Result:
    """Call a function with the options of a command line.

    Args:
        function: its parameters have types, defaults, and descriptions in the docstring. A list takes several
            words: `--index 3 5`. A class, or a dict of classes, takes names and arguments: `--methods.A LRP`.
        arguments: the command line, after the command's name.
        prog: the command's name.
        usage: the first line of the help.

    Returns:
        What the function returns.

    Raises:
        UsageError: the command line cannot be understood.
    """
    described = docstring_parser.parse(function.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
    help_of = {parameter.arg_name: parameter.description for parameter in described.params}
    parser = ArgumentParser(
        prog=prog,
        usage=usage,
        description=described.short_description,
        allow_abbrev=False,
        exit_on_error=False,
        formatter_class=_Help,
    )
    for name, parameter in inspect.signature(function).parameters.items():
        parser.add_argument(
            f"--{name}", default=parameter.default, help=help_of[name], **_words(parameter.annotation)
        )
    chosen = parser.instantiate_classes(parse(parser, arguments))
    return function(**chosen.as_dict())


def _words(annotation: Any) -> dict[str, Any]:
    """Arguments of `add_argument`: the type of an option, and how many words it takes."""
    wanted = [part for part in get_args(annotation) if part is not NoneType]
    if NoneType in get_args(annotation) and len(wanted) == 1:
        annotation = wanted[0]
    if get_origin(annotation) is list:
        return {"type": get_args(annotation)[0], "nargs": "+"}
    return {"type": annotation}
