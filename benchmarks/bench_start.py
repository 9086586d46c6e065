"""Measure how long a first verdict takes.

Each row is `ImageScoring.py` on one picture in a process of its own, as this machine is and, with
--avx2, limited to AVX2; or the first upload in the app, from the moment that the page is complete.
A photograph of 12 megapixels goes to one of the released models, a thumbnail to another.
Each number is the median of its turns.

Example:
    python benchmarks/bench_start.py --repeats 3
"""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.app_load import make_photograph, measure_first_upload  # noqa: E402
from real_vs_ai.core.cli import command, make_parser  # noqa: E402
from real_vs_ai.core.config import PACKAGED_RELEASED_MODEL_DIR  # noqa: E402
from real_vs_ai.core.reporting import format_table  # noqa: E402

# OpenVINO's CPU plugin asks oneDNN, which obeys this variable; TensorFlow's oneDNN does too.
_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}


def measure(picture: Path, *, environment: dict[str, str]) -> float:
    """Seconds from the start of a process to its end, with one verdict in between."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "ImageScoring.py", str(picture)],
        env=os.environ | environment,
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - started


def measure_cpu(
    pictures: list[Path], *, environment: dict[str, str], name: str, repeats: int
) -> list[list[str]]:
    """The rows of one kind of CPU."""
    tasks: dict[str, Callable[[], float]] = {
        picture.stem: functools.partial(measure, picture, environment=environment)
        for picture in pictures
    }
    tasks["first upload in the app"] = functools.partial(
        measure_first_upload, PACKAGED_RELEASED_MODEL_DIR, environment=environment
    )
    medians = {
        what: statistics.median(task() for _ in range(repeats)) for what, task in tasks.items()
    }
    return [[name, what, f"{seconds:.1f}"] for what, seconds in medians.items()]


@command
def main(argv: list[str] | None = None) -> int:
    """Measure every row and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=1, help="turns; their median is given")
    parser.add_argument("--avx2", action="store_true", help="measure an AVX2 machine too")
    args = parser.parse_args(argv)
    machines = {"as it is": {}, **({"AVX2": _AVX2} if args.avx2 else {})}
    with tempfile.TemporaryDirectory() as made:
        pictures = [Path(made, "photograph.jpg"), Path(made, "thumbnail.jpg")]
        for picture, size in zip(pictures, ((4000, 3000), (32, 32)), strict=True):
            picture.write_bytes(make_photograph(1, width=size[0], height=size[1]))
        rows = [
            row
            for name, environment in machines.items()
            for row in measure_cpu(
                pictures, environment=environment, name=name, repeats=args.repeats
            )
        ]
    header = ["CPU", "one picture", "seconds"]
    print(format_table(header, rows, title="Start to verdict"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
