"""How long a photograph of 12 megapixels takes from its bytes to the verdict; on this machine only.

    python -m benchmarks.bench_photograph --model models/released/photographs

The photograph is made here: shapes, noise, JPEG quality 92. Every verdict counts as certain, so
that the second copy, as sites send pictures on, is judged as well: the longest way there is.
"""

import dataclasses
import statistics
import sys
import time

import numpy as np

from benchmarks.common import make_photograph
from real_vs_ai.cli import command, make_parser
from real_vs_ai.images import decode_image
from real_vs_ai.model_file import read_metadata
from real_vs_ai.reporting import format_table
from real_vs_ai.runs import find_model
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.engines import open_engine


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("--model", help="run folder or .h5 file")
    parser.add_argument("--repeats", type=int, default=40, help="how often it is judged")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    path = find_model(args.model)
    metadata = dataclasses.replace(read_metadata(path), lower_threshold=0.5, upper_threshold=0.5)
    views = metadata.model_input.views
    engine = open_engine(
        path, image_size=metadata.image_size, engine=None, precision=None, views=views
    )
    # Sizes and looks of a made picture are no matter of time.
    detector = Detector(path, dataclasses.replace(metadata, training_images={}), engine, None)
    data = make_photograph(7, width=4000, height=3000, quality=92)
    detector.predict(data)
    computed = []
    steps = {"decode": [], "prepare": [], "judge": [], "bytes to verdict": []}
    for _ in range(args.repeats):
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
    title = f"{len(data):,} bytes, {2 * views} crops, {engine.name} in {engine.precision}"
    print(format_table(["step", "p50 (ms)", "p95 (ms)"], rows, title=title))


if __name__ == "__main__":
    sys.exit(main())
