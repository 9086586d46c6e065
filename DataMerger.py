"""Merge split data sets into data/train, data/validation and data/test with Fake/ and Real/.

    python DataMerger.py                               # everything in data/split
    python DataMerger.py data/split/cifake data/split/fake-or-real-sample

Names get their data set before them (cifake__0001.jpg), so that nothing is lost. A content that
two data sets share is kept once, and never in two splits. data/manifest.csv describes every image.
"""

import sys
from pathlib import Path

from real_vs_ai.cli import command, make_parser, options_from
from real_vs_ai.config import DATA_DIR
from real_vs_ai.options import add_cluster, add_workers, whole_number
from real_vs_ai.preparation.merging import MergeOptions, merge_sources
from real_vs_ai.preparation.options import (
    add_confounds,
    add_copy,
    add_near_duplicates,
    add_overwrite,
    add_seed,
)


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument(
        "folders", nargs="*", type=Path, help="split data sets (none: all those in data/split)"
    )
    parser.add_argument(
        "--output-dir", type=Path, default=DATA_DIR, help="gets train, validation and test"
    )
    parser.add_argument(
        "--keep-duplicates",
        action="store_true",
        help="keep contents that two data sets share, unless they stand in two splits",
    )
    add_near_duplicates(parser)
    parser.add_argument(
        "--equalise",
        type=whole_number(1),
        metavar="PIXELS",
        help="make all images squares of this side, alike in format and quality",
    )
    add_confounds(parser)
    add_seed(parser)
    add_copy(parser)
    add_overwrite(parser)
    add_workers(parser)
    add_cluster(parser)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    options = options_from(args, MergeOptions, confounds=not args.no_confounds)
    print(merge_sources(args.folders, output_dir=args.output_dir, options=options))


if __name__ == "__main__":
    sys.exit(main())
