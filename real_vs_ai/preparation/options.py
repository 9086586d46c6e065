"""Declare the options of the data scripts once, as the fields that they fill."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.config import DATA_DIR, SEED, SPLIT_DIR, SPLITS
from real_vs_ai.options import add_cluster, add_workers, option, whole_number
from real_vs_ai.parallel import Pool
from real_vs_ai.preparation.splits import check_fractions


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


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add what the splitters read and where they write."""
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        help="data sets to split (default: all in data/raw with this layout)",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=SPLIT_DIR, help="one folder for each data set goes here"
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


@dataclass(frozen=True, kw_only=True)
class PlacingOptions:
    """What the splitters and the merger share."""

    near_duplicates: str = option(
        "report: list images that look alike (pHash within 3 bits); group: also keep them in one "
        "split; both decode every image and take several times as long",
        "off",
        choices=("off", "report", "group"),
    )
    overwrite: bool = option(add=add_overwrite)
    workers: int = option(add=add_workers)
    cluster: str | None = option(add=add_cluster)
    # Tests of other things leave it out, for it takes a second.
    confounds: bool = True

    @property
    def pool(self) -> Pool:
        """Where the work runs."""
        return Pool(self.workers, self.cluster)


@dataclass(frozen=True, kw_only=True)
class SplitterOptions(PlacingOptions):
    """What the two splitters share."""

    keep_duplicates: bool = option("keep duplicates, in the split of the first copy", False)
    seed: int = option(add=add_seed)


@dataclass(frozen=True, kw_only=True)
class SplitOptions(SplitterOptions):
    """How data sets are split; DataSplitD1.py offers all of it."""

    fractions: Mapping[str, float] = option(
        "shares of train, validation and test, separated by commas",
        "0.7,0.15,0.15",
        type=three_fractions,
    )
    ignore_roles: bool = option(
        "divide collections by --fractions too, whatever split their list names", False
    )


@dataclass(frozen=True, kw_only=True)
class MergeOptions(PlacingOptions):
    """How split data sets are merged."""

    keep_duplicates: bool = option(
        "keep images that are in two data sets, unless they are in two splits", False
    )
    equalise: int | None = option(
        "save all images as squares of this side, in one format and quality",
        metavar="PIXELS",
        type=whole_number(1),
    )
