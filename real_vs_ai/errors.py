"""Define the project's own errors, and turn any error into one line of text.

>>> describe_error(InputError("Expected a folder at data, found none.  Run DataMerger.py first."))
'Expected a folder at data, found none. Run DataMerger.py first.'
"""

from __future__ import annotations

from real_vs_ai.messages import Message


class RealVsAIError(Exception):
    """Something that a user can correct: the message says what was expected and what to do.

    Scripts show these in one line. Any other exception, except those that the operating system
    raises, is a bug and keeps its traceback.
    """


class InputError(RealVsAIError, ValueError):
    """A value, file or folder that the user named cannot be used."""


def one_line(error: BaseException, *, longest: int | None = 200) -> str:
    """The error's message on one line of at most `longest` characters, or the error's name.

    A `Message` stays one, so that a page can say it in another language.
    """
    if error.args and isinstance(error.args[0], Message):
        return error.args[0]
    return " ".join(str(error).split())[:longest] or type(error).__name__


def describe_error(error: BaseException) -> str:
    """One line for people: what was expected, what was received, what to do next."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return one_line(error, longest=None)
