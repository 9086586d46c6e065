"""How fast the app is, and whether many visitors at once disturb one another; on this machine only.

    python -m benchmarks.bench_app --model models/released
    python -m benchmarks.bench_app --model models/released --sessions 20 --seconds 300
    python -m benchmarks.bench_app --model models/released --batches 1 10 40 200

Starts the app by itself on a free port and measures, in this order: the first page from a cold
start, upload to verdict of one visitor with a photograph of 12 megapixels, then many visitors who
upload without pause. Each visitor's images have verdicts known beforehand from the same model, so
that a mixed-up answer is found. With --batches it compares one visitor's batch with
`ImageScoring.py` on the same pictures instead, of 3 megapixels, in turn.
"""

import statistics
import sys
from pathlib import Path

from benchmarks import app_load
from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.reporting import format_table


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="run folder or .h5 file")
    parser.add_argument("--sessions", type=int, default=20, help="visitors at once")
    parser.add_argument("--seconds", type=float, default=30, help="how long they upload")
    parser.add_argument("--uploads", type=int, default=20, help="uploads of the single visitor")
    parser.add_argument("--starts", type=int, default=3, help="cold starts, of which the median")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[], help="pictures at once; nothing else then"
    )
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    model = Path(args.model)
    if args.batches:
        rows = [[n, *app_load.measure_batch(model, count=n)] for n in args.batches]
        rows = [[n, page, script, script / page] for n, page, script in rows]
        columns = ["pictures", "page (s)", "ImageScoring.py (s)", "speed of the page, times"]
        print(format_table(columns, rows, title=f"A batch, with {model}"))
        return 0
    starts = [app_load.measure_cold_start(model) for _ in range(args.starts)]
    with app_load.running_app(model) as app:
        computed = app_load.cpu_seconds(app)
        single = app_load.measure_single_visitor(app, uploads=args.uploads)
        computed = app_load.cpu_seconds(app) - computed
        load = app_load.measure_load(app, model=model, sessions=args.sessions, seconds=args.seconds)
    rows = [
        ["first page from a cold start, median (s)", statistics.median(starts)],
        ["upload to verdict, 12 megapixels, p50 (s)", app_load.quantile(single, 0.5)],
        ["upload to verdict, 12 megapixels, p95 (s)", app_load.quantile(single, 0.95)],
        ["computed for each of them, all cores (s)", computed / (args.uploads + 1)],
        [f"{args.sessions} visitors: uploads", len(load.seconds)],
        [f"{args.sessions} visitors: uploads per second", len(load.seconds) / load.duration],
        [f"{args.sessions} visitors: computed each (s)", load.cpu_seconds / len(load.seconds)],
        [f"{args.sessions} visitors: p95 (s)", app_load.quantile(load.seconds, 0.95)],
        [f"{args.sessions} visitors: errors", load.errors],
        [f"{args.sessions} visitors: mixed-up verdicts", load.mixed_up],
        ["resident memory before the visitors (MB)", load.memory_before_mb],
        ["resident memory, half-way (MB)", load.memory_half_way_mb],
        ["resident memory, highest (MB)", load.memory_highest_mb],
    ]
    print(format_table(["measured", "value"], rows, title=f"The app with {model}"))
    return 1 if load.errors or load.mixed_up else 0


if __name__ == "__main__":
    sys.exit(main())
