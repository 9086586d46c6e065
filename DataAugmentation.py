"""Make augmented copies of the training images in data/augmented_train/.

    python DataAugmentation.py                         # 20,000 copies, at most one of each image
    python DataAugmentation.py --copies 2              # two copies of each image

Each copy is rotated, shifted, sheared, zoomed and perhaps mirrored in one step, and saved in the
file format of its original. Copies already in data/train are never copied again. Validation and
test images are not changed. MoveAugmentedImages.py adds the copies to data/train.
"""

import sys
from pathlib import Path

from real_vs_ai.affine import AffineRanges
from real_vs_ai.cli import command, make_parser
from real_vs_ai.config import AUGMENTED_DIR, DATA_DIR
from real_vs_ai.options import add_cluster, add_workers, number, whole_number
from real_vs_ai.parallel import Pool
from real_vs_ai.preparation.augmentation import list_originals, plan_copies, write_copies
from real_vs_ai.preparation.options import add_overwrite, add_seed


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--train-dir", type=Path, default=DATA_DIR / "train", help="images to copy")
    add("--output-dir", type=Path, default=AUGMENTED_DIR, help="the copies go here")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--total", type=whole_number(1), help="copies to make, spread evenly")
    amount.add_argument("--copies", type=whole_number(1), help="copies to make of each image")
    add("--rotation", type=number(0, 180), default=20.0, help="largest angle, in degrees")
    add("--shift", type=number(0, 1), default=0.2, help="largest share of the side")
    add("--shear", type=number(0, 1), default=0.2, help="largest shear factor")
    add("--zoom", type=number(0, 0.9), default=0.2, help="scale from 1 - zoom to 1 + zoom")
    add("--no-flip", action="store_true", help="mirror no copies")
    add_seed(parser)
    add_overwrite(parser)
    add_workers(parser)
    add_cluster(parser)
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
            pool=Pool(args.workers, args.cluster),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
