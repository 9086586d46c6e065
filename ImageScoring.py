"""Judge images: a verdict for every image in files, folders and zip archives.

Prints a table, or writes one with --output (CSV, JSON, JSON lines or Parquet, by the name's
ending). "-" reads one path a line from standard input; a .csv manifest is read by its column
"path". The model is the newest finished run in models/, otherwise the released one.

Example:
    python ImageScoring.py photos more.zip --output scores.csv
"""

import sys
from pathlib import Path

from real_vs_ai.cli import command, make_parser, options_from
from real_vs_ai.options import add_cluster, add_workers


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help='image, folder, .zip, manifest .csv, or "-" (none: data/test)',
    )
    parser.add_argument("--model", type=Path, help="run folder or .h5 file")
    parser.add_argument("--output", type=Path, help="table to write: .csv, .json, .jsonl, .parquet")
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    parser.add_argument("--resume", action="store_true", help="add what the output does not have")
    add_cluster(parser, engines=("openvino", "keras"))
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), help="force a precision")
    parser.add_argument(
        "--calibration",
        dest="calibration_dir",
        type=Path,
        default=Path("data/validation"),
        help="class folders that int8 is made and checked with, the first time",
    )
    parser.add_argument("--by-tiles", action="store_true", help="score crops of large images too")
    add_workers(parser)
    parser.add_argument("--strict", action="store_true", help="exit 1 if any image is unreadable")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    from real_vs_ai.serving.scoring_job import ScoringOptions, run_scoring

    options = options_from(args, ScoringOptions)
    where = {"output": args.output, "resume": args.resume, "overwrite": args.overwrite}
    summary = run_scoring(args.inputs or ["data/test"], options=options, **where)
    print(f"\n{summary}", file=sys.stdout if args.output else sys.stderr)
    return 1 if summary.failed(strict=args.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
