"""Judge images: a verdict for every image in files, folders and zip archives.

The script prints a table, or writes one with --output (CSV, JSON, JSON lines or Parquet, by the
suffix; "--output -" prints JSON lines). "-" reads one path a line from standard input. A .csv
manifest names images in its column "path".

Example:
    python ImageScoring.py photos more.zip --output scores.csv
"""

import sys
from pathlib import Path

from real_vs_ai.core.cli import MODEL_HELP, add_shared, command, make_parser, options_from
from real_vs_ai.models.runs import make_default


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    inputs = 'image, folder, .zip, manifest .csv, or "-" (none: data/test)'
    add("inputs", nargs="*", metavar="INPUT", help=inputs)
    add("--model", type=Path, help=MODEL_HELP)
    chosen = "let the run of --model answer from now on where none is named, and stop"
    add("--make-default", action="store_true", help=chosen)
    add("--output", type=Path, help='table to write: .csv, .json, .jsonl, .parquet, or "-"')
    add("--overwrite", action="store_true", help="replace an existing table")
    add("--resume", action="store_true", help="finish a table that was interrupted")
    add_shared(parser, "--cluster")
    add("--engine", choices=("openvino", "keras"), help="compute with this engine")
    add("--precision", choices=("f32", "bf16"), help="compute in this precision")
    add_shared(parser, "--workers")
    add("--strict", action="store_true", help="exit 1 if any image is unreadable")
    args = parser.parse_args(argv)
    if args.make_default and (args.inputs or not args.model):
        parser.error("--make-default takes --model RUN, and no images")
    return args


@command
def main(argv=None):
    args = parse_args(argv)
    if args.make_default:
        print(make_default(args.model))
        return 0
    from real_vs_ai.serving.scoring_job import ScoringOptions, run_scoring

    options = options_from(args, ScoringOptions)
    where = {"output": args.output, "resume": args.resume, "overwrite": args.overwrite}
    summary = run_scoring(args.inputs or ["data/test"], options=options, **where)
    to_file = args.output and args.output.name != "-"
    print(f"\n{summary}", file=sys.stdout if to_file else sys.stderr)
    return 1 if summary.failed(strict=args.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
