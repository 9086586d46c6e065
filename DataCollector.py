"""Collect public collections of photographs and generated images into data/raw/<collection>/.

    python DataCollector.py                            # every collection in data/collections.csv
    python DataCollector.py kodak bsds500              # these two
    python DataCollector.py --from ~/git               # from git directories you already have

Each collection is one commit of a git repository. Only the files that the list names are fetched.
Grids are cut into tiles. Files that are not pictures are left out and listed in report.csv.
Collections that already exist are skipped, so an interrupted run can be started again.
DataSplitD1.py comes next.
"""

import sys
from pathlib import Path

from real_vs_ai.cli import command, make_parser, options_from
from real_vs_ai.config import DATA_DIR, RAW_DIR, REPOSITORIES_DIR
from real_vs_ai.options import add_fields
from real_vs_ai.preparation.collections.collecting import CollectOptions, collect
from real_vs_ai.preparation.collections.collection_list import read_collections


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("collections", nargs="*", help="names in the list (default: all)")
    parser.add_argument(
        "--list", type=Path, default=DATA_DIR / "collections.csv", help="the list of collections"
    )
    parser.add_argument("--output-dir", type=Path, default=RAW_DIR, help="for the new folders")
    add_fields(parser, CollectOptions)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    options = options_from(args, CollectOptions, repositories_dir=REPOSITORIES_DIR)
    collections = read_collections(args.list, names=args.collections)
    summary = collect(collections, output_dir=args.output_dir, options=options)
    print(summary)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
