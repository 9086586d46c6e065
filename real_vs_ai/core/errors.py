"""Define the project's own errors, and turn any error into one line of text.

>>> describe_error(InputError("Expected a folder at data, found none.  Run DataMerger.py first."))
'Expected a folder at data, found none. Run DataMerger.py first.'
"""

from __future__ import annotations

import importlib.util
import sys
import textwrap

from real_vs_ai.core.messages import Message

_COLUMNS = 80


class RealVsAIError(Exception):
    """Something that a user can correct: the message says what was expected and what to do.

    Scripts show these in one line. Any other exception, except those that the operating system
    raises, is a bug and keeps its traceback.
    """


class InputError(RealVsAIError, ValueError):
    """A value, file or folder that the user named cannot be used."""


class MissingPackageError(RealVsAIError, ImportError):
    """A package of requirements.txt is not installed."""

    def __init__(self, module: str) -> None:
        super().__init__(
            f"Expected the package {module}, found only what the app needs. "
            "Run: pip install -r requirements.txt"
        )


def require_packages(*modules: str) -> None:
    """Raise MissingPackageError for the first of these modules that is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingPackageError(module)


def one_line(error: BaseException, *, longest: int | None = 200) -> str:
    """The error's message on one line of at most `longest` characters, or the error's name.

    A `Message` stays one, so that a page can say it in another language.
    """
    if error.args and isinstance(error.args[0], Message):
        return error.args[0]
    return " ".join(str(error).split())[:longest] or type(error).__name__


def print_error(text: str) -> None:
    """Print an error for people: one line, folded at 80 columns where a terminal shows it."""
    line = f"error: {text}"
    if sys.stderr.isatty():
        # A path must stay whole, to be copied.
        line = textwrap.fill(
            line, _COLUMNS, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
        )
    print(line, file=sys.stderr)


def describe_error(error: BaseException) -> str:
    """One line for people: what was expected, what was received, what to do next."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return one_line(error, longest=None)
