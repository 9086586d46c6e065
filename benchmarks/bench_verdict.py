"""How long single verdicts take in a warm process; on this machine only.

    python -m benchmarks.bench_verdict data/test --model models/released

Images are judged one after another, from their bytes, each with NumPy's matrix products in one
thread, as the detector does, and with all of NumPy's threads.
"""

import contextlib
import sys
import time
from pathlib import Path

import numpy as np

from real_vs_ai.cli import command, make_parser
from real_vs_ai.errors import InputError
from real_vs_ai.reporting import format_table
from real_vs_ai.serving import detector as detector_module
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.engines import one_blas_thread

_WARM_UP = 10


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path, help="images, searched recursively")
    parser.add_argument("--model", help="run folder or .h5 file")
    parser.add_argument("--images", type=int, default=500, help="how many are judged")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    paths = sorted(path for path in args.folder.rglob("*") if path.is_file())
    if not paths:
        raise InputError(f"Expected images in {args.folder}, found none.")
    images = [path.read_bytes() for path in paths[:: max(1, len(paths) // args.images)]]
    detector = Detector.open(args.model)
    rows = []
    for name, limit in (("one", one_blas_thread), ("all", contextlib.nullcontext)):
        detector_module.one_blas_thread = limit
        for image in images[:_WARM_UP]:
            detector.predict(image)
        times = []
        for image in images:
            started = time.perf_counter()
            detector.predict(image)
            times.append(1000 * (time.perf_counter() - started))
        rows.append([name, *(f"{value:.1f}" for value in np.quantile(times, (0.5, 0.95)))])
    title = f"{len(images)} verdicts, {detector.engine.name} ({detector.engine.precision}), in ms"
    print(format_table(["NumPy's threads", "median", "95 of 100 within"], rows, title=title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
