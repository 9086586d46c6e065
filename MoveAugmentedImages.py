"""Move the augmented copies from data/augmented_train to data/train and list them in the manifest.

    python MoveAugmentedImages.py

No file is overwritten or added twice: a second run adds nothing. Run it again to finish a run that
was interrupted.
"""

import sys
from pathlib import Path

from real_vs_ai.cli import command, make_parser
from real_vs_ai.config import AUGMENTED_DIR, DATA_DIR
from real_vs_ai.preparation.moving import move_augmented


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument(
        "--augmented-dir", type=Path, default=AUGMENTED_DIR, help="folder of the copies"
    )
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="folder that holds train/")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    print(move_augmented(augmented_dir=args.augmented_dir, data_dir=args.data_dir))


if __name__ == "__main__":
    sys.exit(main())
