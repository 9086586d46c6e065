"""Make pairs of real training images and their reconstructions by a generator's autoencoder.

    python DataReconstruction.py --weights ~/taesd     # up to 50 pairs of each source
    python DataReconstruction.py --per-source 200

The content of a pair is the same, so that only traces of the decoder tell Fake from Real. A part of
each image goes through TAEF2, the tiny autoencoder of FLUX.2; the result is Fake, the part itself
Real, and both are stored as their original was. MoveAugmentedImages.py adds them to data/train.
The weights are two files of 2.7 MB from github.com/madebyollin/taesd (MIT).
"""

import sys
from pathlib import Path

from real_vs_ai.cli import add_data_dir, add_overwrite, command, make_parser, whole_number
from real_vs_ai.config import AUGMENTED_DIR, DATA_DIR, SEED
from real_vs_ai.preparation.augmentation import list_originals
from real_vs_ai.preparation.reconstruction import PART_SIDE, choose_originals, write_pairs


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add_data_dir(parser)
    add("--weights", type=Path, default=DATA_DIR / "taef2", help="folder of the two weight files")
    add("--per-source", type=whole_number(1), default=50, help="most images of each source")
    add_overwrite(parser)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    train_dir = args.data_dir / "train"
    originals = choose_originals(list_originals(train_dir), per_source=args.per_source, seed=SEED)
    # Loads TensorFlow, which the rest does without.
    from real_vs_ai.networks.torch_networks import open_autoencoder

    print(
        write_pairs(
            originals,
            train_dir=train_dir,
            output_dir=args.data_dir / AUGMENTED_DIR.name,
            reconstruct=open_autoencoder(args.weights),
            size=PART_SIDE,
            seed=SEED,
            overwrite=args.overwrite,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
