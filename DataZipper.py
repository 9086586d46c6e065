"""Pack a folder into a zip archive. Without arguments, pack the merged data set in data/.

    python DataZipper.py                               # data/ → data/prepared.zip
    python DataZipper.py models/first-try              # → models/first-try.zip

Links, hidden files and the system files of macOS and Windows are left out. The same files give the
same archive, byte for byte.
"""

import sys
from pathlib import Path

from real_vs_ai.core.cli import add_shared, command, make_parser
from real_vs_ai.core.config import DATA_DIR, MANIFEST_NAME, SPLITS
from real_vs_ai.preparation.archives import zip_folder


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="folder (default: the merged data)")
    parser.add_argument("--output", type=Path, help="archive (default: next to the folder)")
    add_shared(parser, "--overwrite")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    folder, output, entries = args.folder, args.output, None
    if folder is None:
        folder, entries = DATA_DIR, (*SPLITS, MANIFEST_NAME)
        output = output or DATA_DIR / "prepared.zip"
    named = folder.resolve() if folder.name in {"", ".."} else folder
    output = output or named.with_name(f"{named.name}.zip")
    print(zip_folder(folder, output=output, entries=entries, overwrite=args.overwrite))


if __name__ == "__main__":
    sys.exit(main())
