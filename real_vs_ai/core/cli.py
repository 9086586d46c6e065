"""Parse arguments and exit for every script; only scripts and their command lines import it."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from real_vs_ai.core.errors import MissingPackageError, RealVsAIError, describe_error, print_error
from real_vs_ai.core.options import SHARED, Options

AnyOptions = TypeVar("AnyOptions", bound=Any)

MODEL_HELP = "run folder or .h5 file (default: that of --make-default, else the released models)"

# What bad input or a full disk raises. UnicodeError comes from text files in another encoding.
# Anything else, a ValueError of NumPy's included, is a bug and keeps its traceback.
_EXPECTED_ERRORS = (RealVsAIError, OSError, MemoryError, UnicodeError)

# Modules that requirements.txt adds to requirements-app.txt.
_BEYOND_THE_APP = "tensorflow keras matplotlib sklearn scipy joblib cv2 imagehash skimage"


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == ():
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the option that a misspelled one may mean."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown arguments: {' '.join(unknown)}{self._suggestion(unknown)}")
        return parsed

    def _suggestion(self, unknown: Sequence[str]) -> str:
        for word in unknown:
            name = word.split("=")[0]
            close = difflib.get_close_matches(name, self._option_string_actions, n=1)
            if name.startswith("-") and close:
                return f". Did you mean {close[0]}?"
        return ""


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, with the default of every option."""
    return _Parser(description=description, formatter_class=_HelpFormatter)


def options_from(args: argparse.Namespace, options: type[AnyOptions], **others: Any) -> AnyOptions:
    """Make an options dataclass from parsed arguments of the same names, and from `others`."""
    names = {field.name for field in dataclasses.fields(options)} & set(vars(args)) - set(others)
    made: AnyOptions = options(**{name: getattr(args, name) for name in names}, **others)
    return made


def _show_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, MissingPackageError):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# A script imports the package before its `main` can catch anything.
sys.excepthook = _show_error


def command(work: Callable[[Any], int | None]) -> Callable[..., int]:
    """Make a script's `main` from the function that does its work.

    The result takes the arguments (None: the terminal's) and returns the exit code: 0 done (or
    what the work returned), 1 could not be done, after one line on standard error. Wrong usage
    leaves with 2, as argparse does. With REAL_VS_AI_DEBUG=1 in the environment the traceback is
    shown as well.
    """

    @functools.wraps(work)
    def main(argv: Any = None) -> int:
        try:
            return work(argv) or 0
        except KeyboardInterrupt:
            print("\nInterrupted. Finished work is kept.", file=sys.stderr)
        except BrokenPipeError:
            # The reader (`| head`) has gone; keep the interpreter from complaining as it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            if module not in _BEYOND_THE_APP.split():
                raise
            print_error(str(MissingPackageError(module)))
        except _EXPECTED_ERRORS as error:
            if os.environ.get("REAL_VS_AI_DEBUG"):
                traceback.print_exc()
            print_error(describe_error(error))
        return 1

    return main


def add_fields(
    parser: argparse.ArgumentParser, options_type: type[Options], *, given_only: bool = False
) -> None:
    """Add an option for each field that an option class shows.

    Args:
        given_only: Leave out of the parsed arguments what the command line does not name.
    """
    target: argparse._ActionsContainer = parser
    for field in dataclasses.fields(options_type):
        declared = dict(field.metadata)
        if not declared or not declared.pop("shown", True):
            continue
        if group := declared.pop("group", None):
            target = parser.add_argument_group(group)
        flags = declared.pop("flags", ("--" + field.name.replace("_", "-"),))
        if given_only and field.default not in (None, False, ()):
            declared["help"] += f" (default: {field.default})"
        default = argparse.SUPPRESS if given_only else field.default
        target.add_argument(*flags, **_declaration(field.default, declared) | {"default": default})


def add_shared(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Add options that several scripts share, by their flags."""
    for flag in flags:
        declared = dict(SHARED[flag])
        declared["help"] = declared.pop("help_text")
        parser.add_argument(flag, **_declaration(declared.get("default"), declared))


def _declaration(default: Any, declared: dict[str, Any]) -> dict[str, Any]:
    """What argparse is told of an option with this default."""
    if default is False:
        return {"action": "store_true", "help": declared["help"]}
    return {"type": Path, **declared} if isinstance(default, Path) else declared
