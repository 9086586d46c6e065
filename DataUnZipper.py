"""Unpack downloaded archives safely, each into data/raw/<name of the archive>/.

    python DataUnZipper.py                             # every archive in data/archives
    python DataUnZipper.py ~/Downloads/cifake.zip      # these archives

Zip, tar, tar.gz, tar.xz and tar.bz2 are read. Every entry is checked before anything is written;
an archive that is damaged or hostile is refused as a whole.
"""

import sys
from pathlib import Path

from real_vs_ai.cli import command, make_parser
from real_vs_ai.config import RAW_DIR
from real_vs_ai.preparation.archives import ExtractionLimits, extract_archives
from real_vs_ai.preparation.options import add_overwrite, add_workers, positive_number


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument(
        "archives", nargs="*", type=Path, help="archives (none: all those in data/archives)"
    )
    parser.add_argument("--output-dir", type=Path, default=RAW_DIR, help="gets a folder for each")
    parser.add_argument(
        "--max-gib", type=positive_number, default=200.0, help="refuse archives that unpack to more"
    )
    parser.add_argument(
        "--max-files", type=int, default=20_000_000, help="refuse archives with more files"
    )
    parser.add_argument(
        "--max-ratio",
        type=positive_number,
        default=100.0,
        help="refuse archives, and large files in them, that unpack to so many times their size",
    )
    add_overwrite(parser)
    add_workers(parser, ray=True)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    limits = ExtractionLimits(
        max_bytes=int(args.max_gib * 2**30), max_files=args.max_files, max_ratio=args.max_ratio
    )
    for summary in extract_archives(
        args.archives,
        output_dir=args.output_dir,
        limits=limits,
        overwrite=args.overwrite,
        workers=args.workers,
        engine=args.engine,
    ):
        print(summary)


if __name__ == "__main__":
    sys.exit(main())
