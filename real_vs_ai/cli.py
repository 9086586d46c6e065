"""Parse arguments and exit for every script: help with defaults, exit codes 0, 1 and 2."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from real_vs_ai.errors import RealVsAIError, describe_error

Options = TypeVar("Options")

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

    def parse_args(self, args=None, namespace=None):
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


def options_from(args: argparse.Namespace, options: type[Options], **others: Any) -> Options:
    """Make an options dataclass from parsed arguments of the same names, and from `others`."""
    names = {field.name for field in dataclasses.fields(options)} & set(vars(args)) - set(others)
    return options(**{name: getattr(args, name) for name in names}, **others)


def exit_without(*modules: str) -> None:
    """Leave with exit code 1 and one line where a module of requirements.txt is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise SystemExit(f"error: {_missing(module)}")


def _missing(module: str) -> str:
    return (
        f"Expected the package {module}, found only what the app needs. "
        "Run: pip install -r requirements.txt"
    )


def command(work: Callable[[Sequence[str] | None], int | None]) -> Callable[..., int]:
    """Make a script's `main` from the function that does its work.

    The result takes the arguments (None: the terminal's) and returns the exit code: 0 done (or
    what the work returned), 1 could not be done, after one line on standard error. Wrong usage
    leaves with 2, as argparse does. With REAL_VS_AI_DEBUG=1 in the environment the traceback is
    shown as well.
    """

    @functools.wraps(work)
    def main(argv: Sequence[str] | None = None) -> int:
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
            print(f"error: {_missing(module)}", file=sys.stderr)
        except _EXPECTED_ERRORS as error:
            if os.environ.get("REAL_VS_AI_DEBUG"):
                traceback.print_exc()
            print(f"error: {describe_error(error)}", file=sys.stderr)
        return 1

    return main
