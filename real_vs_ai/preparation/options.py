"""Declare the options of the data scripts once, as the fields that they fill."""

from __future__ import annotations

import argparse
from argparse import BooleanOptionalAction
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.config import SEED, SPLIT_DIR, SPLITS
from real_vs_ai.options import add_cluster, add_workers, option, whole_number
from real_vs_ai.parallel import Pool
from real_vs_ai.preparation.splits import check_fractions


def add_overwrite(parser: argparse._ActionsContainer) -> None:
    """Add --overwrite."""
    parser.add_argument("--overwrite", action="store_true", help="replace existing output")


def add_seed(parser: argparse._ActionsContainer) -> None:
    """Add --seed."""
    parser.add_argument("--seed", type=whole_number(0), default=SEED, help="of everything random")


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add what the splitters read and where they write."""
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        help="data sets (none: every one in data/raw that has this layout)",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=SPLIT_DIR, help="gets a folder for each data set"
    )


def three_fractions(text: str) -> dict[str, float]:
    """ "0.7,0.15,0.15" → {"train": 0.7, "validation": 0.15, "test": 0.15}."""
    try:
        fractions = dict(zip(SPLITS, map(float, text.split(",")), strict=True))
        check_fractions(fractions)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected three fractions of train, validation and test that sum to 1, found {text}"
        ) from error
    return fractions


@dataclass(frozen=True)
class PlacingOptions:
    """What the splitters and the merger share."""

    near_duplicates: str = option(
        "report lists images that look alike (pHash within 3 bits), group also keeps them out of "
        "different splits; both decode every image, which takes several times as long",
        "off",
        choices=("off", "report", "group"),
    )
    confounds: bool = option(
        "measure how far size, format and the like give the class away",
        True,
        action=BooleanOptionalAction,
    )
    seed: int = option(add=add_seed)
    copy: bool = option("make copies even where hard links are possible", False)
    overwrite: bool = option(add=add_overwrite)
    workers: int = option(add=add_workers)
    cluster: str | None = option(add=add_cluster)

    @property
    def pool(self) -> Pool:
        """Where the work runs."""
        return Pool(self.workers, self.cluster)


@dataclass(frozen=True)
class SplitterOptions(PlacingOptions):
    """What the two splitters share."""

    keep_duplicates: bool = option(
        "keep second copies of the same content, in the split of the first", False
    )
    verify: bool = option(
        "decode every image; without it only headers are read", True, action=BooleanOptionalAction
    )


@dataclass(frozen=True)
class SplitOptions(SplitterOptions):
    """How data sets are split; DataSplitD1.py offers all of it."""

    fractions: Mapping[str, float] = option(
        "shares of train, validation and test", "0.7,0.15,0.15", type=three_fractions
    )
    ignore_roles: bool = option(
        "divide collections by these shares too, not whole as their list says", False
    )
    keep_plain: bool = option(
        "keep posters and diagrams among the training images of collections", False
    )


@dataclass(frozen=True)
class MergeOptions(PlacingOptions):
    """How split data sets are merged."""

    keep_duplicates: bool = option(
        "keep contents that two data sets share, unless they stand in two splits", False
    )
    equalise: int | None = option(
        "make all images squares of this side, alike in format and quality",
        metavar="PIXELS",
        type=whole_number(1),
    )
