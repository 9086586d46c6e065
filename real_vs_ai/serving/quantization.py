"""An 8-bit form of a model, made from labelled images and kept only if it stays as accurate.

    report = ensure_int8(model_path, calibration_dir=Path("data/validation"))
    detector = Detector.open(model_path, precision="int8")

Post-training quantisation by NNCF (`pip install -r requirements-int8.txt`): some images set the
ranges, others, not among them, show what it costs. The result lies in the model's cache entry.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from real_vs_ai.config import SEED, canonical_classes
from real_vs_ai.images import ImageError, open_image, resize_image
from real_vs_ai.model_file import ModelMetadata, read_metadata
from real_vs_ai.serving.image_sources import iterate_sources, read_source
from real_vs_ai.serving.model_cache import CacheEntry, cached_ir

# In fractions: 0.2 percentage points.
LARGEST_ACCURACY_LOSS = 0.002
_CALIBRATION_IMAGES = 200
_CHECKED_IMAGES = 1000
_FEWEST_CHECKED_IMAGES = 100


class QuantizationError(ValueError):
    """The model has no 8-bit form; the message says why and what to do."""


@dataclass(frozen=True)
class QuantizationReport:
    """What the 8-bit form costs.

    Attributes:
        n_images: Images it was checked on.
        accuracy: Of the model in float32, a fraction.
        int8_accuracy: Of its 8-bit form.
    """

    n_images: int
    accuracy: float
    int8_accuracy: float

    def __str__(self) -> str:
        return (
            f"int8 checked on {self.n_images:,} images: accuracy {self.int8_accuracy:.2%}, "
            f"in float32 {self.accuracy:.2%}"
        )


def ensure_int8(model_path: Path, *, calibration_dir: Path) -> QuantizationReport | None:
    """Make the model's 8-bit form unless the cache has it.

    Args:
        model_path: The `.h5` file.
        calibration_dir: A folder of class folders, as `data/validation`; at least 200 images.

    Returns:
        What it costs, or None when it was there.

    Raises:
        QuantizationError: It loses more than 0.2 points of accuracy, there are too few images, or
            NNCF is not installed.
    """
    entry = cached_ir(model_path)
    if entry.int8_ir.is_file():
        return None
    metadata = read_metadata(model_path)
    pixels, labels = _read_labelled(calibration_dir, metadata)
    report, staging = _quantize(entry, pixels, labels, n_calibration=_split(len(pixels)))
    try:
        if report.accuracy - report.int8_accuracy > LARGEST_ACCURACY_LOSS:
            raise QuantizationError(
                f"{report}: more than {LARGEST_ACCURACY_LOSS:.1%} lost, so int8 is refused. Use "
                "--precision bf16 or f32."
            )
        # Another process may have made it meanwhile; one is as good as the other.
        if not entry.int8_ir.is_file():
            staging.replace(entry.int8_ir.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _split(n_images: int) -> int:
    """How many of the images set the ranges; the others are for the check."""
    n_calibration = min(_CALIBRATION_IMAGES, n_images // 2)
    if n_images - n_calibration < _FEWEST_CHECKED_IMAGES:
        raise QuantizationError(
            f"Expected at least {2 * _FEWEST_CHECKED_IMAGES} labelled images to calibrate int8 "
            f"with, found {n_images}. Name a larger folder with --calibration."
        )
    return n_calibration


def _quantize(
    entry: CacheEntry, pixels: np.ndarray, labels: np.ndarray, *, n_calibration: int
) -> tuple[QuantizationReport, Path]:
    try:
        import nncf
    except ImportError as error:
        raise QuantizationError(
            "Expected NNCF for --precision int8, found none. "
            "Run: pip install -r requirements-int8.txt"
        ) from error
    import openvino as ov

    core = ov.Core()
    model = core.read_model(entry.ir)
    batches = [image[None].astype(np.float32) for image in pixels[:n_calibration]]
    quantized = nncf.quantize(model, nncf.Dataset(batches), subset_size=n_calibration)
    checked, expected = pixels[n_calibration:], labels[n_calibration:]
    report = QuantizationReport(
        n_images=len(checked),
        accuracy=_accuracy(core, core.read_model(entry.ir), checked, expected),
        int8_accuracy=_accuracy(core, quantized, checked, expected),
    )
    staging = Path(tempfile.mkdtemp(prefix=".int8.", dir=entry.folder))
    ov.save_model(quantized, staging / entry.int8_ir.name, compress_to_fp16=False)
    return report, staging


def _accuracy(core, model, pixels: np.ndarray, labels: np.ndarray) -> float:
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    predicted = [int(np.argmax(compiled(image[None].astype(np.float32))[0])) for image in pixels]
    return float(np.mean(np.equal(predicted, labels)))


def _read_labelled(folder: Path, metadata: ModelMetadata) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled network inputs and their labels, as many as calibration and check need."""
    if not folder.is_dir():
        raise QuantizationError(
            f"Expected class folders {metadata.class_names} in {folder} to calibrate int8 with, "
            "found no such folder. Name one with --calibration."
        )
    classes = canonical_classes(path.name for path in folder.iterdir() if path.is_dir())
    sources = [
        (source, metadata.class_names.index(name))
        for raw, name in classes.items()
        if name in metadata.class_names
        for source in iterate_sources([str(folder / raw)])
    ]
    order = np.random.default_rng(SEED).permutation(len(sources))
    pixels, labels = [], []
    for index in order[: _CALIBRATION_IMAGES + _CHECKED_IMAGES]:
        source, label = sources[index]
        try:
            image = open_image(read_source(source))
        except (ImageError, OSError):
            continue
        pixels.append(resize_image(image, metadata.image_size))
        labels.append(label)
    return np.array(pixels), np.array(labels)
