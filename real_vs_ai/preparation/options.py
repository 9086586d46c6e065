"""Declare each option that several data scripts share once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from real_vs_ai.config import SEED, SPLIT_DIR, SPLITS
from real_vs_ai.options import add_cluster, add_workers, whole_number
from real_vs_ai.preparation.splits import check_fractions
from real_vs_ai.preparation.splitting import NEAR_DUPLICATE_MODES, SplitOptions


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add --overwrite."""
    parser.add_argument("--overwrite", action="store_true", help="replace existing output")


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add --seed."""
    parser.add_argument("--seed", type=whole_number(0), default=SEED, help="of everything random")


def add_copy(parser: argparse.ArgumentParser) -> None:
    """Add --copy."""
    parser.add_argument(
        "--copy", action="store_true", help="make copies even where hard links are possible"
    )


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of both splitters, except their fractions."""
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        help="data sets (none: every one in data/raw that has this layout)",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=SPLIT_DIR, help="gets a folder for each data set"
    )
    add_seed(parser)
    parser.add_argument(
        "--keep-duplicates",
        action="store_true",
        help="keep second copies of the same content, in the split of the first",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="read image headers only, decode nothing"
    )
    add_near_duplicates(parser)
    add_confounds(parser)
    add_copy(parser)
    add_overwrite(parser)
    add_workers(parser)
    add_cluster(parser)


def add_near_duplicates(parser: argparse.ArgumentParser) -> None:
    """Add --near-duplicates."""
    parser.add_argument(
        "--near-duplicates",
        choices=NEAR_DUPLICATE_MODES,
        default="off",
        help="report lists images that look alike (pHash within 3 bits), group also keeps them "
        "out of different splits; both decode every image, which takes several times as long",
    )


def add_confounds(parser: argparse.ArgumentParser) -> None:
    """Add --no-confounds."""
    parser.add_argument(
        "--no-confounds",
        action="store_true",
        help="do not measure how far size, format and the like give the class away",
    )


def split_options(
    args: argparse.Namespace, *, fractions: Mapping[str, float], roles: bool, keep_plain: bool
) -> SplitOptions:
    """The options that `add_split_options` declared."""
    return SplitOptions(
        fractions=fractions,
        roles=roles,
        keep_plain=keep_plain,
        seed=args.seed,
        keep_duplicates=args.keep_duplicates,
        verify=not args.no_verify or args.near_duplicates != "off",
        near_duplicates=args.near_duplicates,
        confounds=not args.no_confounds,
        copy=args.copy,
        overwrite=args.overwrite,
        workers=args.workers,
        cluster=args.cluster,
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
