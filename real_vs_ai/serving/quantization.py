"""Make an 8-bit form of a model from labelled images, and keep it only if it stays accurate.

Post-training quantisation by NNCF (`pip install -e ".[int8]"`): some images set the
ranges, others, not among them, show what it costs. Where 8 bits throughout cost too much, the first
layers and the classifier, which feel the rounding most, stay in floating point. The result lies in
the model's cache entry.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import openvino as ov

from real_vs_ai.config import SEED, canonical_classes
from real_vs_ai.errors import InputError
from real_vs_ai.files import atomic_folder, list_folders
from real_vs_ai.images import ImageError, open_image
from real_vs_ai.model_file import ModelMetadata, read_metadata
from real_vs_ai.reporting import progress
from real_vs_ai.serving.image_sources import iterate_sources, read_source
from real_vs_ai.serving.model_cache import CacheEntry, cache_dir, cached_ir, discard
from real_vs_ai.serving.openvino_engine import best_precision

# In fractions: 0.2 percentage points.
LARGEST_ACCURACY_LOSS = 0.002
_CALIBRATION_IMAGES = 200
# A difference of 0.2 points is 8 of them; one of fewer images would be chance.
_CHECKED_IMAGES = 4000
# How many of the first convolutions stay in floating point, the classifier with them: tried in
# turn, the fastest first. Measured on ResNet101: 5 % and 17 % fewer images a second.
_FLOAT_CONVOLUTIONS = (0, 1, 11)
_FEWEST_CHECKED_IMAGES = 100


class QuantizationError(InputError):
    """The model has no 8-bit form; the message says why and what to do."""


@dataclass(frozen=True)
class QuantizationReport:
    """What the 8-bit form costs.

    Attributes:
        accuracy: Of the model in float32, a fraction.
        n_float_convolutions: How many of the first convolutions stay in floating point.
    """

    n_images: int
    accuracy: float
    int8_accuracy: float
    n_float_convolutions: int

    @property
    def acceptable(self) -> bool:
        """Whether it loses no more than LARGEST_ACCURACY_LOSS."""
        # 0.95 - 0.948 is a trifle more than 0.002 in floating point.
        return self.accuracy - self.int8_accuracy <= LARGEST_ACCURACY_LOSS + 1e-9

    def __str__(self) -> str:
        kept = ""
        if self.n_float_convolutions:
            n = self.n_float_convolutions
            first = "convolution" if n == 1 else f"{n} convolutions"
            kept = f" (the first {first} and the classifier left in floating point)"
        return (
            f"int8 checked on {self.n_images:,} images: accuracy {self.int8_accuracy:.2%}, "
            f"in float32 {self.accuracy:.2%}{kept}"
        )


def ensure_int8(model_path: Path, *, calibration_dir: Path) -> QuantizationReport | None:
    """Make the model's 8-bit form unless the cache has it.

    Args:
        model_path: The `.h5` file.
        calibration_dir: A folder of class folders, as `data/validation`; at least 200 images.

    Returns:
        What it costs, or None when it was there.

    Raises:
        QuantizationError: It loses more than 0.2 points of accuracy, there are too few images, the
            cache cannot be written, or NNCF is not installed.
        ConversionError: The model has no OpenVINO form.
    """
    entry = cached_ir(model_path)
    if entry.is_temporary:
        discard(entry)
        raise QuantizationError(
            f"Expected a folder for int8 that can be written, found {cache_dir()}. Name another in "
            "REAL_VS_AI_CACHE."
        )
    if entry.int8_ir.is_file():
        return None
    if importlib.util.find_spec("nncf") is None:
        raise QuantizationError(
            'Expected NNCF for --precision int8, found none. Run: pip install -e ".[int8]"'
        )
    # Processes that need the same one wait for the first.
    with filelock.FileLock(entry.folder / "int8.lock"):
        if entry.int8_ir.is_file():
            return None
        metadata = read_metadata(model_path)
        pixels, labels = _read_labelled(calibration_dir, metadata)
        report, model = _quantize(entry, pixels, labels, n_calibration=_split(len(pixels)))
        if not report.acceptable:
            raise QuantizationError(
                f"{report}: more than {LARGEST_ACCURACY_LOSS:.1%} lost, so int8 is refused. Use "
                "--precision bf16 or f32."
            )
        with atomic_folder(entry.int8_ir.parent) as staging:
            ov.save_model(model, staging / entry.int8_ir.name, compress_to_fp16=False)
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
) -> tuple[QuantizationReport, ov.Model]:
    """The first 8-bit form that loses little enough, otherwise the last one tried."""
    core = ov.Core()
    checked, expected = pixels[n_calibration:], labels[n_calibration:]
    accuracy = _accuracy(core, core.read_model(entry.ir), checked, expected, precision="f32")
    for n_convolutions in _FLOAT_CONVOLUTIONS:
        model = core.read_model(entry.ir)
        kept = _sensitive_layers(model, n_convolutions=n_convolutions)
        quantized = _quantize_all_but(kept, model, pixels[:n_calibration])
        int8_accuracy = _accuracy(
            core, quantized, checked, expected, precision=best_precision(core)
        )
        report = QuantizationReport(len(checked), accuracy, int8_accuracy, n_convolutions)
        if report.acceptable:
            break
    return report, quantized


def _quantize_all_but(kept: list[str], model: ov.Model, pixels: np.ndarray) -> ov.Model:
    """NNCF's 8-bit form; the layers named stay as they are."""
    # NNCF reports on standard output, which may be where the table goes.
    with contextlib.redirect_stdout(sys.stderr):
        import nncf

        nncf.set_log_level(logging.WARNING)
        return nncf.quantize(
            model,
            nncf.Dataset([image[None].astype(np.float32) for image in pixels]),
            subset_size=len(pixels),
            ignored_scope=nncf.IgnoredScope(names=kept),
        )


def _sensitive_layers(model: ov.Model, *, n_convolutions: int) -> list[str]:
    """Names of the first convolutions and of the classifier's matrix products."""
    if not n_convolutions:
        return []
    names: dict[str, list[str]] = {"Convolution": [], "MatMul": []}
    for node in model.get_ordered_ops():
        if node.get_type_name() in names:
            names[node.get_type_name()].append(node.get_friendly_name())
    return names["Convolution"][:n_convolutions] + names["MatMul"]


def _accuracy(
    core: ov.Core, model: ov.Model, pixels: np.ndarray, labels: np.ndarray, *, precision: str
) -> float:
    """Share of right classes when what is in floating point is computed in this precision."""
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT"}
    requests = ov.AsyncInferQueue(core.compile_model(model, "CPU", settings))
    predicted = np.empty(len(pixels), dtype=int)

    def note(request: ov.InferRequest, index: int) -> None:
        predicted[index] = np.argmax(request.get_output_tensor(0).data)

    requests.set_callback(note)
    for index, image in enumerate(progress(pixels, description="Checking", unit="image")):
        requests.start_async(image[None].astype(np.float32), index)
    requests.wait_all()
    return float(np.mean(predicted == labels))


def _read_labelled(folder: Path, metadata: ModelMetadata) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled network inputs and their labels, as many as calibration and check need."""
    if not folder.is_dir():
        raise QuantizationError(
            f"Expected class folders {metadata.class_names} in {folder} to calibrate int8 with, "
            "found no such folder. Name one with --calibration."
        )
    classes = canonical_classes(path.name for path in list_folders(folder))
    sources = [
        (source, metadata.class_names.index(name))
        for raw, name in classes.items()
        if name in metadata.class_names
        for source in iterate_sources([str(folder / raw)])
    ]
    order = np.random.default_rng(SEED).permutation(len(sources))
    order = order[: _CALIBRATION_IMAGES + _CHECKED_IMAGES]
    # Filled in place: at 224 pixels a second copy would be another 600 MB.
    pixels = np.empty((len(order), metadata.image_size, metadata.image_size, 3), dtype=np.uint8)
    labels = []
    for index in progress(order, description="Reading", unit="image"):
        source, label = sources[index]
        try:
            image = open_image(read_source(source))
        except (ImageError, OSError):
            continue
        # The crop in the middle stands for several.
        views = metadata.model_input.prepare(image)
        pixels[len(labels)] = views[len(views) // 2]
        labels.append(label)
    return pixels[: len(labels)], np.array(labels)
