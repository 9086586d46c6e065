"""How long an image takes from its bytes to the verdict, one by one; on this machine only.

    python -m benchmarks.bench_verdict --model models/released/photographs
    python -m benchmarks.bench_verdict --images DIR --megapixels 3
    python -m benchmarks.bench_verdict --images data/test --megapixels 0

Without --images a photograph is made here: shapes, noise, JPEG quality 92.
"""

import io
import itertools
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.common import make_photograph
from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.images import decode_image
from real_vs_ai.core.reporting import format_table
from real_vs_ai.models.runs import find_model
from real_vs_ai.serving.detector import Detector


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("--model", help="run folder or .h5 file")
    parser.add_argument("--repeats", type=int, default=40, help="how many are judged")
    parser.add_argument("--images", type=Path, help="folder of real ones, brought to the size")
    parser.add_argument("--megapixels", type=float, default=12.0, help="size; 0: as they are")
    return parser.parse_args(argv)


def read_files(args):
    """Files of the size asked for."""
    width = round(math.sqrt(args.megapixels * 1e6 * 4 / 3))
    size = (width, width * 3 // 4)
    if args.images is None:
        return [make_photograph(7, width=size[0], height=size[1], quality=92)]
    paths = sorted(args.images.rglob("*.jpg"))[: args.repeats]
    if not paths:
        raise InputError(f"Expected JPEG files in {args.images}, found none.")
    if not args.megapixels:
        return [path.read_bytes() for path in paths]
    found = []
    for path in paths:
        with Image.open(path) as image:
            buffer = io.BytesIO()
            ImageOps.fit(image.convert("RGB"), size).save(buffer, "JPEG", quality=92)
        found.append(buffer.getvalue())
    return found


@command
def main(argv=None):
    args = parse_args(argv)
    path = find_model(args.model)
    detector = Detector.open(path)
    files = read_files(args)
    detector.predict(files[0])
    computed = []
    steps = {"decode": [], "prepare": [], "judge": [], "bytes to verdict": []}
    for data, _ in zip(itertools.cycle(files), range(args.repeats), strict=False):
        started, times = time.process_time(), [time.perf_counter()]
        image = decode_image(data)
        times.append(time.perf_counter())
        prepared = detector.prepare(image)
        times.append(time.perf_counter())
        detector.judge([prepared])
        times.append(time.perf_counter())
        for name, seconds in zip(steps, [*np.diff(times), times[-1] - times[0]], strict=True):
            steps[name].append(1000 * seconds)
        computed.append(1000 * (time.process_time() - started))
    rows = [
        [name, statistics.median(values), float(np.quantile(values, 0.95))]
        for name, values in steps.items()
    ]
    rows.append(["computed, all cores", statistics.median(computed), np.quantile(computed, 0.95)])
    engine = detector.engine
    size = f"{args.megapixels:g} megapixels" if args.megapixels else "as they are"
    title = f"{size}, {engine.name} in {engine.precision}"
    print(format_table(["step", "p50 (ms)", "p95 (ms)"], rows, title=title))


if __name__ == "__main__":
    sys.exit(main())
