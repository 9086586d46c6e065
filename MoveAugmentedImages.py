"""Move the augmented copies from data/augmented_train to data/train and list them in the manifest.

    python MoveAugmentedImages.py

No file is overwritten or added twice: a second run adds nothing. Run it again to finish a run that
was interrupted.
"""

import sys

from real_vs_ai.core.cli import add_shared, command, make_parser
from real_vs_ai.preparation.merging import move_augmented


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add_shared(parser, "--data-dir")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    print(move_augmented(args.data_dir))


if __name__ == "__main__":
    sys.exit(main())
