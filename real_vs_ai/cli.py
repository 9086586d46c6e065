"""Parse arguments and exit for every script, and declare the options that scripts share.

>>> whole_number(1)("8")
8
>>> number(0, 1, ends=False)("0.25")
0.25
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import importlib.util
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from real_vs_ai.config import DATA_DIR, SEED
from real_vs_ai.errors import RealVsAIError, describe_error, print_error
from real_vs_ai.parallel import CLUSTERS, available_workers

Options = TypeVar("Options")

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
            print_error(_missing(module))
        except _EXPECTED_ERRORS as error:
            if os.environ.get("REAL_VS_AI_DEBUG"):
                traceback.print_exc()
            print_error(describe_error(error))
        return 1

    return main


def whole_number(lowest: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number of at least `lowest`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if value < lowest:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {lowest}, found {text}"
            )
        return value

    return parse


def number(lowest: float, highest: float, *, ends: bool = True) -> Callable[[str], float]:
    """The type of an option that takes a finite number.

    Args:
        lowest: The smallest allowed value.
        highest: The largest allowed value; may be infinite with `ends=False`.
        ends: Whether both are allowed themselves.
    """
    ranges = f"from {lowest:g} to {highest:g}" if ends else f"above {lowest:g}"
    # A limit that nobody meets is not worth naming.
    if not ends and highest < 1e9:
        ranges += f" and below {highest:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (lowest <= value <= highest if ends else lowest < value < highest):
            raise argparse.ArgumentTypeError(f"expected a finite number {ranges}, found {text}")
        return value

    return parse


def option(
    help_text: str = "", default: Any = None, metavar: str | None = None, **declaration: Any
) -> Any:
    """Declare a dataclass field as an option of the command line; `add_fields` adds it.

    Args:
        help_text: What --help says of it.
        default: Where the option is not given; False declares a switch.
        **declaration: More for argparse (`type`, `choices`, `nargs`, …), and: `flags` where they
            are not the field's name, `group` to open a group of options, `shared` for the flag of
            an option that several scripts have, `shown=False` for one that only `hidden` adds.
    """
    if metavar:
        declaration["metavar"] = metavar
    return dataclasses.field(metadata={"help": help_text, "default": default, **declaration})


def add_fields(
    parser: argparse.ArgumentParser, options_type: type, *, hidden: bool = False
) -> None:
    """Add an option for each field of a dataclass that was declared with `option`."""
    target: argparse._ActionsContainer = parser
    for field in dataclasses.fields(options_type):
        declared = dict(field.metadata)
        if not declared.pop("shown", True) and not hidden:
            continue
        if group := declared.pop("group", None):
            target = parser.add_argument_group(group)
        if flag := declared.pop("shared", None):
            add_shared(target, flag)
        elif declared:
            flags = declared.pop("flags", ("--" + field.name.replace("_", "-"),))
            if declared["default"] is False:
                declared = {"action": "store_true", "help": declared["help"]}
            elif isinstance(declared["default"], Path):
                declared["type"] = Path
            target.add_argument(*flags, **declared)


_SHARED = {
    "--workers": {
        "type": whole_number(1),
        "default": available_workers(),
        "metavar": "N",
        "help": "number of images or files to read at the same time",
    },
    "--cluster": {
        "choices": CLUSTERS,
        "help": "spread the work over a cluster whose machines share the folders",
    },
    "--overwrite": {"action": "store_true", "help": "replace output that exists"},
    "--data-dir": {
        "type": Path,
        "default": DATA_DIR,
        "help": "folder of train, to which augmented_train belongs",
    },
    "--seed": {"type": whole_number(0), "default": SEED, "help": "seed of all random choices"},
}


def add_shared(parser: argparse._ActionsContainer, *flags: str) -> None:
    """Add options that several scripts share, by their flags."""
    for flag in flags:
        parser.add_argument(flag, **_SHARED[flag])
