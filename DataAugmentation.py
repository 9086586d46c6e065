"""Make augmented copies of the training images in data/augmented_train/.

    python DataAugmentation.py                         # 20,000 copies, at most one of each image
    python DataAugmentation.py --copies 2              # two copies of each image

Each copy is rotated, shifted, sheared, zoomed and perhaps mirrored in one step, and saved in the
file format of its original. Copies already in data/train are never copied again. Validation and
test images are not changed. MoveAugmentedImages.py adds the copies to data/train.
"""

import sys

from real_vs_ai.core.cli import add_shared, command, make_parser
from real_vs_ai.core.options import whole_number
from real_vs_ai.core.parallel import Pool
from real_vs_ai.preparation.augmentation import augment


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add_shared(parser, "--data-dir")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--total", type=whole_number(1), help="copies to make, spread evenly")
    amount.add_argument("--copies", type=whole_number(1), help="copies to make of each image")
    add_shared(parser, "--seed", "--overwrite", "--workers", "--cluster")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    summary = augment(
        args.data_dir,
        total=args.total,
        copies=args.copies,
        seed=args.seed,
        overwrite=args.overwrite,
        pool=Pool(args.workers, args.cluster),
    )
    print(summary)


if __name__ == "__main__":
    sys.exit(main())
