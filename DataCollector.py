"""Collect public collections of photographs and generated images into data/raw/<collection>/.

    python DataCollector.py                            # all that data/collections.csv lists
    python DataCollector.py kodak bsds500              # these
    python DataCollector.py --from ~/git               # existing git directories

Each collection is one commit of a git repository; only the files that the list names are fetched.
Grids are cut into tiles; what is no picture is left out and named in report.csv. Collections that
are there are passed over, so a run that was interrupted goes on. DataSplitD1.py comes next.
"""

import sys
from pathlib import Path

from real_vs_ai.cli import command, make_parser
from real_vs_ai.config import DATA_DIR, RAW_DIR, REPOSITORIES_DIR
from real_vs_ai.options import add_workers, whole_number
from real_vs_ai.preparation.collecting import CollectOptions, collect
from real_vs_ai.preparation.collection_list import read_collections
from real_vs_ai.preparation.options import add_overwrite


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("collections", nargs="*", help="names in the list (none: all)")
    parser.add_argument(
        "--list", type=Path, default=DATA_DIR / "collections.csv", help="the list of collections"
    )
    parser.add_argument("--output-dir", type=Path, default=RAW_DIR, help="gets a folder for each")
    parser.add_argument(
        "--from",
        type=Path,
        dest="git_dirs",
        metavar="DIR",
        help="take git directories that lie here, as owner+name.git, and fetch nothing",
    )
    parser.add_argument("--server", default="https://github.com", help="where repositories are")
    parser.add_argument(
        "--min-side", type=whole_number(1), default=200, help="leave out smaller images, in pixels"
    )
    add_overwrite(parser)
    add_workers(parser)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    options = CollectOptions(
        git_dirs=args.git_dirs,
        server=args.server,
        repositories_dir=REPOSITORIES_DIR,
        min_side=args.min_side,
        overwrite=args.overwrite,
        workers=args.workers,
    )
    collections = read_collections(args.list, names=args.collections)
    summary = collect(collections, output_dir=args.output_dir, options=options)
    print(summary)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
