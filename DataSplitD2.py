"""Split data sets that have train/ and test/: part of train becomes validation, test stays.

    python DataSplitD2.py                              # every such data set in data/raw
    python DataSplitD2.py data/raw/cifake --validation-fraction 0.1

Reads class folders (REAL/ and FAKE/, or any others) in train/ and test/, in any letter case. A
validation/ folder is kept as it is. Use DataSplitD1.py for data sets with class folders alone.
Images of test are left out of train, and so are duplicates; report.csv lists them. Broken files go
to quarantine/.
"""

import sys

from real_vs_ai.core.cli import add_fields, command, make_parser, options_from
from real_vs_ai.preparation.layouts import TRAIN_TEST, find_sources
from real_vs_ai.preparation.splitting import (
    TrainTestOptions,
    add_sources,
    describe_splits,
    split_sources,
)


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add_sources(parser)
    add_fields(parser, TrainTestOptions)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    layouts = find_sources(args.folders, kind=TRAIN_TEST)
    options = options_from(args, TrainTestOptions)
    print(describe_splits(split_sources(layouts, output_dir=args.output_dir, options=options)))


if __name__ == "__main__":
    sys.exit(main())
