"""Merge split data sets into data/train, data/validation and data/test with Fake/ and Real/.

    python DataMerger.py                               # everything in data/split
    python DataMerger.py data/split/cifake data/split/fake-or-real-sample

Each file name starts with its data set (cifake__0001.jpg), so that no file replaces another. An
image that is in two data sets is kept once, and never in two splits. data/manifest.csv describes
every image.
"""

import sys
from pathlib import Path

from real_vs_ai.core.cli import add_fields, command, make_parser, options_from
from real_vs_ai.core.config import DATA_DIR
from real_vs_ai.preparation.merging import MergeOptions, merge_sources


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument(
        "folders", nargs="*", type=Path, help="split data sets (default: all in data/split)"
    )
    parser.add_argument(
        "--output-dir", type=Path, default=DATA_DIR, help="train, validation and test go here"
    )
    add_fields(parser, MergeOptions)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    options = options_from(args, MergeOptions)
    print(merge_sources(args.folders, output_dir=args.output_dir, options=options))


if __name__ == "__main__":
    sys.exit(main())
