"""How far the precisions of this processor differ on real images, and how fast each is, in one run.

    python -m benchmarks.bench_precision models/released cifake-mini.zip
    python -m benchmarks.bench_precision models/released cifake-mini.zip --store

Every image is prepared once. The precisions judge the same inputs by turns, and bf16 is compared
with float32. Accuracy takes the more probable class and counts images that lie in a folder of a
class. `--store` puts the figures into the run's metrics.json and writes its model card again.
"""

import sys
import time
from pathlib import Path, PurePosixPath

import numpy as np
import openvino as ov

from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.config import UNCERTAIN, canonical_classes
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import read_json, write_json, write_text
from real_vs_ai.core.images import ImageError, decode_image
from real_vs_ai.core.reporting import format_table, progress
from real_vs_ai.evaluation.model_card import model_card
from real_vs_ai.evaluation.tables import precision_table
from real_vs_ai.models.model_file import calibrate
from real_vs_ai.models.runs import RunFolder, find_model
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.image_sources import iterate_sources, read_source
from real_vs_ai.serving.openvino_engine import best_precision

# Images that are judged by one call.
_TOGETHER = 64


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("model", help="run folder or .h5 file")
    parser.add_argument("images", nargs="+", help="folders or zip archives")
    parser.add_argument("--most", type=int, default=2000, help="most images, evenly drawn")
    parser.add_argument("--store", action="store_true", help="write the figures onto the card")
    return parser.parse_args(argv)


def read_images(inputs, detectors, *, most):
    """The images that can be read, prepared for each detector, and their classes or ""."""
    prepared, labels = {name: [] for name in detectors}, []
    class_names = next(iter(detectors.values())).metadata.class_names
    sources = list(iterate_sources(inputs))
    sources = sources[:: -(-len(sources) // most)] if sources else []
    for source in progress(sources, description="Reading", unit="image"):
        try:
            image = decode_image(read_source(source))
        except (ImageError, OSError):
            continue
        for name, detector in detectors.items():
            prepared[name].append(detector.prepare(image))
        folders = [canonical_classes([part])[part] for part in PurePosixPath(source.name).parts]
        known = [name for name in folders if name in class_names]
        labels.append(known[-1] if known else "")
    if not labels:
        raise InputError(f"Expected images in {', '.join(inputs)}, found none.")
    return prepared, np.array(labels)


def judge(detectors, looks):
    """By precision: labels of the verdicts, calibrated probabilities, and images a second.

    The precisions take turns at each chunk, so that other work on the machine slows all of them.
    The speed is that of the verdicts, without decoding.
    """
    verdicts = {name: [] for name in detectors}
    seconds = dict.fromkeys(detectors, 0.0)
    n_images = len(next(iter(looks.values())))
    for start in progress(range(0, n_images, _TOGETHER), description="Judging", unit="chunk"):
        for name, detector in detectors.items():
            chunk = looks[name][start : start + _TOGETHER]
            started = time.perf_counter()
            verdicts[name] += detector.judge(chunk)
            seconds[name] += time.perf_counter() - started
    found = {}
    for name, detector in detectors.items():
        labels = np.array([verdict.label for verdict in verdicts[name]])
        raw = np.array([verdict.uncalibrated for verdict in verdicts[name]])
        calibrated = calibrate(raw, temperature=detector.metadata.temperature)
        found[name] = labels, calibrated, n_images / seconds[name]
    return found


def compare(found, of_f32, truth, class_names):
    """What changes from float32 to another precision; each as `judge` gives it."""
    changed = found[0] != of_f32[0]
    certain = (found[0] != UNCERTAIN) & (of_f32[0] != UNCERTAIN)
    known = np.isin(truth, class_names)
    right = [np.array(class_names)[part[1].argmax(axis=1)] == truth for part in (of_f32, found)]
    accuracies = [float(part[known].mean()) if known.any() else None for part in right]
    return {
        "n": len(truth),
        "labelled": int(known.sum()),
        "accuracy_f32": accuracies[0],
        "accuracy": accuracies[1],
        "largest_difference": float(np.abs(found[1] - of_f32[1]).max()),
        "flipped": int(np.sum(changed & certain)),
        "uncertain_changed": int(np.sum(changed & ~certain)),
    }


def store(run, rows):
    """Put the figures onto the card; those of the same precision and images are replaced."""
    metrics = read_json(run.metrics)
    new = {(row["precision"], row["images"]) for row in rows}
    kept = [r for r in metrics.get("precisions", ()) if (r["precision"], r["images"]) not in new]
    metrics["precisions"] = kept + rows
    write_json(run.metrics, metrics)
    write_text(run.model_card, model_card(run.name, metrics, read_json(run.config)))


@command
def main(argv=None):
    args = parse_args(argv)
    model_path = find_model(args.model)
    run = RunFolder(model_path.parent)
    if args.store and not run.metrics.is_file():
        raise InputError(f"Expected a report's {run.metrics.name} in {run.path}, found none.")
    detectors = {
        name: Detector.open(model_path, engine="openvino", precision=name, for_batches=True)
        for name in dict.fromkeys(["f32", best_precision(ov.Core())])
    }
    prepared, truth = read_images(args.images, detectors, most=args.most)
    found = judge(detectors, prepared)
    images = ", ".join(Path(name).stem for name in args.images)
    names = detectors["f32"].metadata.class_names
    compared = [
        {"precision": name, "images": images, **compare(part, found["f32"], truth, names)}
        for name, part in found.items()
    ]
    headers, rows = precision_table(compared)
    for row, name in zip(rows, detectors, strict=True):
        speed = found[name][2]
        row += [f"{speed:.1f}", f"{speed / found['f32'][2]:.2f}"]
    print(format_table([*headers, "images/s", "to f32"], rows, title=str(model_path)))
    if args.store:
        store(run, compared[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
