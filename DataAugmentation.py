"""Make augmented copies of the training images in data/augmented_train/.

    python DataAugmentation.py                         # 20,000, or one per image if those are fewer
    python DataAugmentation.py --copies 2              # two of every image

Each copy is rotated, shifted, sheared, zoomed and perhaps mirrored in one step, and saved in the
file format of its original. Copies that are in data/train already are never copied again;
validation and test are not touched. MoveAugmentedImages.py adds the copies to data/train.
"""

import sys
from pathlib import Path

from real_vs_ai.cli import command, make_parser
from real_vs_ai.config import AUGMENTED_DIR, DATA_DIR
from real_vs_ai.preparation.augmentation import list_originals, plan_copies, write_copies
from real_vs_ai.preparation.options import add_overwrite, add_seed, add_workers, positive_int
from real_vs_ai.preparation.warping import AffineRanges


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("--train-dir", type=Path, default=DATA_DIR / "train", help="images to copy")
    parser.add_argument("--output-dir", type=Path, default=AUGMENTED_DIR, help="gets the copies")
    number = parser.add_mutually_exclusive_group()
    number.add_argument(
        "--total", type=positive_int, help="copies in all, spread evenly over classes and images"
    )
    number.add_argument("--copies", type=positive_int, help="copies of every image instead")
    parser.add_argument("--rotation", type=float, default=20.0, help="most degrees to either side")
    parser.add_argument("--shift", type=float, default=0.2, help="most share of width and height")
    parser.add_argument("--shear", type=float, default=0.2, help="most shear factor")
    parser.add_argument("--zoom", type=float, default=0.2, help="scale from 1 - zoom to 1 + zoom")
    parser.add_argument("--no-flip", action="store_true", help="mirror none of the copies")
    add_seed(parser)
    add_overwrite(parser)
    add_workers(parser, ray=True)
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    ranges = AffineRanges(args.rotation, args.shift, args.shear, args.zoom, flip=not args.no_flip)
    originals = list_originals(args.train_dir)
    plan = plan_copies(originals, total=args.total, copies=args.copies, seed=args.seed)
    print(
        write_copies(
            plan,
            train_dir=args.train_dir,
            output_dir=args.output_dir,
            ranges=ranges,
            seed=args.seed,
            overwrite=args.overwrite,
            workers=args.workers,
            engine=args.engine,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
