"""Pack a folder into a zip archive. Without arguments, pack the merged data set in data/.

    python DataZipper.py                               # data/ → data/prepared.zip
    python DataZipper.py models/first-try              # → models/first-try.zip

Links, hidden files and the system files of macOS and Windows are left out. The same files give the
same archive, byte for byte.
"""

import sys
from pathlib import Path

from real_vs_ai.cli import add_overwrite, command, make_parser
from real_vs_ai.preparation.archives import choose_input, zip_folder


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="folder (default: the merged data)")
    parser.add_argument("--output", type=Path, help="archive (default: next to the folder)")
    add_overwrite(parser)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    folder, output, entries = choose_input(args.folder, args.output)
    print(zip_folder(folder, output=output, entries=entries, overwrite=args.overwrite))


if __name__ == "__main__":
    sys.exit(main())
