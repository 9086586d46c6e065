"""Split data sets of class folders into train, validation and test.

    python DataSplitD1.py                              # every such data set in data/raw
    python DataSplitD1.py data/raw/fake-or-real-sample --fractions 0.8,0.1,0.1

Reads RealArt/ and GeneratedArt/, real_images/ and fake_images/, or any other class folders. Use
DataSplitD2.py for data sets with train/ and test/ folders. A whole collection (DataCollector.py)
goes into the split that the list of collections names. The same content is never in two splits.
Duplicates are left out and listed in report.csv. Broken files go to quarantine/.
"""

import sys

from real_vs_ai.core.cli import add_fields, command, make_parser, options_from
from real_vs_ai.preparation.layouts import FLAT, find_sources
from real_vs_ai.preparation.splitting import (
    SplitOptions,
    add_sources,
    describe_splits,
    split_sources,
)


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add_sources(parser)
    add_fields(parser, SplitOptions)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    layouts = find_sources(args.folders, kind=FLAT)
    options = options_from(args, SplitOptions)
    print(describe_splits(split_sources(layouts, output_dir=args.output_dir, options=options)))


if __name__ == "__main__":
    sys.exit(main())
