"""Delete prepared data or trained runs, after showing what will be deleted and asking.

    python DataDeleter.py                              # data/raw, data/split, data/augmented_train
    python DataDeleter.py models/first-try --yes       # without asking

Only files and folders inside data/ and models/ can be deleted. A link is deleted, but never what it
points to. Downloaded archives are deleted only if you name them.
"""

import sys
from pathlib import Path

from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.config import DATA_DIR, MODELS_DIR
from real_vs_ai.core.reporting import plural
from real_vs_ai.preparation.staging import delete, plan_deletion


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        help="what to delete (default: the folders that the scripts can make again)",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser.parse_args(argv)


def confirm(question):
    """Ask on the terminal; without anybody to answer the answer is no."""
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False


@command
def main(argv=None):
    args = parse_args(argv)
    plan = plan_deletion(args.paths, allowed=[DATA_DIR, MODELS_DIR])
    print(plan)
    if not args.yes and not confirm(f"Delete {plural(plan.files, 'file')}? [y/N] "):
        print("Nothing was deleted.")
        return 1
    delete(plan)
    print(f"Deleted {plural(plan.files, 'file')}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
