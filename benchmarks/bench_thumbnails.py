"""How a model of small images judges thumbnails of other pictures, which it was not made for.

Each picture of the collections is cut square, reduced to the model's size by one of four filters,
and saved in four ways. A collection holds `real_images`, `fake_images`, or both, as
DataCollector.py writes them. "forced" takes the more probable class and ignores the
out-of-distribution check.

Example:
    python -m benchmarks.bench_thumbnails data/raw/kodak data/raw/kolors --model models/released
"""

import io
import itertools
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.config import UNCERTAIN
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import list_files
from real_vs_ai.core.images import decode_image
from real_vs_ai.core.reporting import format_table
from real_vs_ai.models.runs import find_model
from real_vs_ai.serving.detector import Detector

_CLASSES = {"real_images": "Real", "fake_images": "Fake"}
_FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
_SAVED = {
    "PNG": {"format": "PNG"},
    "WebP 80": {"format": "WEBP", "quality": 80},
    "JPEG 90": {"format": "JPEG", "quality": 90},
    "JPEG 75": {"format": "JPEG", "quality": 75},
}


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("collections", nargs="+", type=Path, help="folders of DataCollector.py")
    parser.add_argument("--model", help="run folder or .h5 file")
    return parser.parse_args(argv)


def pictures(collections):
    """Every picture with its class; (path, "Real" or "Fake")."""
    for collection in collections:
        folders = {collection / name: label for name, label in _CLASSES.items()}
        found = {folder: label for folder, label in folders.items() if folder.is_dir()}
        if not found:
            raise InputError(f"Expected {' or '.join(_CLASSES)} in {collection}, found neither.")
        for folder, label in found.items():
            yield from ((folder / path, label) for path in list_files(folder))


def reduce(path, *, side, resampling):
    """The middle square of a picture, as a PIL image of side × side pixels."""
    image = decode_image(path.read_bytes()).image
    length = min(image.size)
    left, top = (image.width - length) // 2, (image.height - length) // 2
    return image.resize((side, side), resampling, (left, top, left + length, top + length))


def save(image, **options):
    """The bytes of a saved image."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def judge(detector, files):
    """The verdicts' labels, and the labels of the more probable class."""
    prepared = [detector.prepare(file) for file in files]
    verdicts = detector.judge(prepared)
    names = detector.metadata.class_names
    forced = [names[int(np.argmax(verdict.uncalibrated))] for verdict in verdicts]
    return [verdict.label for verdict in verdicts], forced


def row(name, labels, verdicts, forced):
    """A row of the table: shares of the thumbnails."""
    labels, verdicts, forced = map(np.array, (labels, verdicts, forced))
    certain = verdicts != UNCERTAIN
    return [
        name,
        len(labels),
        np.mean(certain & (verdicts != labels)),
        np.mean(certain & (verdicts == labels)),
        np.mean(forced == labels),
        balanced_accuracy_score(labels, forced) if len(set(labels)) > 1 else "",
    ]


@command
def main(argv=None):
    args = parse_args(argv)
    path = find_model(args.model)
    detector = Detector.open(path)
    side = detector.metadata.image_size
    labels, thumbnails = [], []
    for index, (picture, label) in enumerate(pictures(args.collections)):
        resampling = _FILTERS[index % len(_FILTERS)]
        thumbnails.append(reduce(picture, side=side, resampling=resampling))
        labels.append(label)
    found = {
        name: judge(detector, [save(image, **options) for image in thumbnails])
        for name, options in _SAVED.items()
    }
    rows = [row(name, labels, *judged) for name, judged in found.items()]
    together = [list(itertools.chain(*parts)) for parts in zip(*found.values(), strict=True)]
    rows.append(row("together", labels * len(_SAVED), *together))
    headers = ["saved as", "thumbnails", "certain, wrong", "certain, right", "forced, right"]
    headers.append("balanced accuracy, forced")
    print(format_table(headers, rows, title=f"Thumbnails of {side} pixels, {path}"))


if __name__ == "__main__":
    sys.exit(main())
