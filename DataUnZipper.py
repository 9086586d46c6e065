"""Unpack downloaded archives safely, each into data/raw/<name of the archive>/.

    python DataUnZipper.py                             # every archive in data/archives
    python DataUnZipper.py ~/Downloads/cifake.zip      # this archive

Reads zip archives. Every entry is checked before anything is written. A damaged or hostile archive
is refused as a whole.
"""

import sys
from pathlib import Path

from real_vs_ai.core.cli import add_shared, command, make_parser
from real_vs_ai.core.config import RAW_DIR
from real_vs_ai.core.parallel import Pool
from real_vs_ai.preparation.archives import extract_archives


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("archives", nargs="*", type=Path, help="archives (default: all in data/archives)")
    add("--output-dir", type=Path, default=RAW_DIR, help="parent of the new folders")
    add_shared(parser, "--overwrite", "--workers", "--cluster")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    for summary in extract_archives(
        args.archives,
        output_dir=args.output_dir,
        overwrite=args.overwrite,
        pool=Pool(args.workers, args.cluster),
    ):
        print(summary)


if __name__ == "__main__":
    sys.exit(main())
