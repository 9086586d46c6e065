"""Collect photographs and generated images into data/raw/<collection>/.

    python DataCollector.py                            # every collection in data/collections.csv
    python DataCollector.py kodak bsds500              # these two
    python DataCollector.py --from ~/git               # from git directories you already have
    python DataCollector.py --label-by-evidence ~/pictures    # your own, Fake or Real by evidence

Each collection is one commit of a git repository, or a folder of yours. Files are Fake or Real as
the list says, or by evidence: a generator's traces, the name that a tool gave a file, a camera's
settings, a commit before 2022. Grids are cut into tiles. What is left out is listed with its
reason in report.csv. Collections that already exist are skipped, so an interrupted run can be
started again. DataSplitD1.py comes next.
"""

import sys
from pathlib import Path

from real_vs_ai.core.cli import add_fields, command, make_parser, options_from
from real_vs_ai.core.config import DATA_DIR, RAW_DIR
from real_vs_ai.preparation.collections.collecting import collect, collect_folders
from real_vs_ai.preparation.collections.collection_list import read_collections
from real_vs_ai.preparation.collections.gathering import CollectOptions


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("collections", nargs="*", help="names in the list (default: all)")
    parser.add_argument(
        "--list", type=Path, default=DATA_DIR / "collections.csv", help="the list of collections"
    )
    parser.add_argument(
        "--label-by-evidence",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="collect from these folders or git repositories, not from the list",
    )
    parser.add_argument("--output-dir", type=Path, default=RAW_DIR, help="for the new folders")
    add_fields(parser, CollectOptions)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    options = options_from(args, CollectOptions)
    if args.label_by_evidence:
        folders = args.label_by_evidence
        summary = collect_folders(folders, output_dir=args.output_dir, options=options)
    else:
        collections = read_collections(args.list, names=args.collections)
        summary = collect(collections, output_dir=args.output_dir, options=options)
    print(summary)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
