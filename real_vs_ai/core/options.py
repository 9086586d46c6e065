"""Declare options once, as fields of a dataclass with a default, a check and a sentence each.

Python, recipes and the command line (`cli.add_fields`) read the same declaration.

>>> @dataclass(frozen=True, kw_only=True)
... class Learning(Options):
...     epochs: int = option("how often every image is seen", 20, type=whole_number(1))
...     sources: tuple[str, ...] = option("data sets to learn from", ())
>>> Learning(sources=["a", "b"])
Learning(epochs=20, sources=('a', 'b'))
>>> Learning(epochs=0)
Traceback (most recent call last):
real_vs_ai.core.options.OptionError: epochs: expected a whole number of at least 1, found 0
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_vs_ai.core.config import DATA_DIR, SEED
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.parallel import CLUSTERS, available_workers


class OptionError(InputError, argparse.ArgumentTypeError):
    """A value that an option does not take; argparse shows the message as it is."""


def whole_number(lowest: int) -> Callable[[Any], int]:
    """The type of an option that takes a whole number of at least `lowest`."""

    def read(value: Any) -> int:
        try:
            # By its text, so that 2.5 and True are none.
            number = int(str(value))
        except ValueError:
            number = lowest - 1
        if number < lowest:
            raise OptionError(f"expected a whole number of at least {lowest}, found {value}")
        return number

    return read


def number(lowest: float, highest: float, *, ends: bool = True) -> Callable[[Any], float]:
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

    def read(value: Any) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not (lowest <= number <= highest if ends else lowest < number < highest):
            raise OptionError(f"expected a finite number {ranges}, found {value}")
        return number

    return read


SHARED: dict[str, dict[str, Any]] = {
    "--workers": {
        "type": whole_number(1),
        "default": available_workers(),
        "metavar": "N",
        "help_text": "number of images or files to read at the same time",
    },
    "--cluster": {
        "choices": CLUSTERS,
        "help_text": "spread the work over a cluster whose machines share the folders",
    },
    "--overwrite": {"default": False, "help_text": "replace output that exists"},
    "--data-dir": {
        "default": DATA_DIR,
        "help_text": "folder of train, to which augmented_train belongs",
    },
    "--seed": {"type": whole_number(0), "default": SEED, "help_text": "seed of all random choices"},
}


def option(
    help_text: str, default: Any = None, metavar: str | None = None, **declaration: Any
) -> Any:
    """Declare a dataclass field as an option.

    Args:
        help_text: What --help says of it.
        default: Where the option is not given; False declares a switch.
        **declaration: More for argparse (`type`, `choices`, `nargs`, …), and: `flags` where they
            are not the field's name, `group` to open a group of options, `shown=False` for one
            that only recipes and Python set.
    """
    if metavar:
        declaration["metavar"] = metavar
    return dataclasses.field(default=default, metadata={"help": help_text, **declaration})


def shared(flag: str) -> Any:
    """Declare a field as an option that several scripts have, by its flag."""
    return option(**SHARED[flag])


@dataclass(frozen=True, kw_only=True)
class Options:
    """The base of option classes: every value is checked and normalised, wherever it comes from.

    Raises:
        OptionError: A value is out of its range; the message names the field.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.metadata:
                object.__setattr__(self, field.name, read_value(field, getattr(self, field.name)))


def read_value(field: dataclasses.Field[Any], value: Any) -> Any:
    """The value of a field, given in Python, JSON or text; an OptionError names the field."""
    if value is None and field.default is None:
        return None
    try:
        if field.default is False:
            return _read_switch(value)
        if isinstance(field.default, tuple) and isinstance(value, str):
            value = [name.strip() for name in value.split(",") if name.strip()]
        if isinstance(value, (list, tuple)):
            return tuple(_read_one(field, item) for item in value)
        return _read_one(field, value)
    except OptionError as error:
        raise OptionError(f"{field.name}: {error}") from error


def _read_switch(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise OptionError(f"expected true or false, found {value}")
    return str(value).lower() == "true"


def _read_one(field: dataclasses.Field[Any], value: Any) -> Any:
    read = field.metadata.get("type", Path if isinstance(field.default, Path) else str)
    one, choices = read(value), field.metadata.get("choices")
    if choices and one not in choices:
        raise OptionError(f"expected {', '.join(map(str, choices))}, found {value}")
    return one
