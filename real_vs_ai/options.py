"""Declare the options that scripts share, and the types of their values.

>>> whole_number(1)("8")
8
>>> number(0, 1, ends=False)("0.25")
0.25
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from real_vs_ai.config import DATA_DIR, SEED

CLUSTERS = ("ray",)
MODEL_HELP = "run folder or .h5 file (default: the newest finished run, else all released models)"


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
            are not the field's name, `group` to open a group of options, `add` for a function
            that declares the option, `shown=False` for one that only `hidden` adds.
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
        if add := declared.pop("add", None):
            add(target)
        elif declared:
            flags = declared.pop("flags", ("--" + field.name.replace("_", "-"),))
            if declared["default"] is False:
                declared = {"action": "store_true", "help": declared["help"]}
            elif isinstance(declared["default"], Path):
                declared["type"] = Path
            target.add_argument(*flags, **declared)


def available_workers() -> int:
    """Processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def add_workers(group: argparse._ActionsContainer) -> None:
    """Add --workers."""
    group.add_argument(
        "--workers",
        type=whole_number(1),
        default=available_workers(),
        metavar="N",
        help="number of images or files to read at the same time",
    )


def add_memory(group: argparse._ActionsContainer) -> None:
    """Add --memory."""
    group.add_argument(
        "--memory",
        type=number(0, 1e6),
        default=4.0,
        metavar="GB",
        help="decoded images of a split beyond this stay on disk, memory-mapped",
    )


def add_cluster(parser: argparse._ActionsContainer) -> None:
    """Add --cluster."""
    parser.add_argument(
        "--cluster",
        choices=CLUSTERS,
        help="spread the work over a cluster whose machines share the folders",
    )


def add_overwrite(parser: argparse._ActionsContainer) -> None:
    """Add --overwrite."""
    parser.add_argument("--overwrite", action="store_true", help="replace output that exists")


def add_data_dir(parser: argparse._ActionsContainer) -> None:
    """Add --data-dir, for scripts that add to the training images."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=DATA_DIR,
        help="folder of train, to which augmented_train belongs",
    )


def add_seed(parser: argparse._ActionsContainer) -> None:
    """Add --seed."""
    parser.add_argument(
        "--seed", type=whole_number(0), default=SEED, help="seed of all random choices"
    )
