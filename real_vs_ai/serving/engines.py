"""Compute the softmax with OpenVINO on the CPU, or with Keras.

OpenVINO is chosen wherever it works: it needs no TensorFlow. Keras is chosen on a machine whose GPU
TensorFlow can use, is what remains where the model cannot be compiled, and is the reference.
"""

from __future__ import annotations

import importlib.util
import shutil
import threading
from pathlib import Path
from typing import Protocol

import numpy as np

from real_vs_ai.core.errors import InputError, one_line
from real_vs_ai.models.keras_models import (
    MissingKerasError,
    keras_is_installed,
    load_for_inference,
    sees_gpu,
)

ENGINES = ("openvino", "keras")
PRECISIONS = ("f32", "bf16")
_KERAS_BATCH = 32


class Engine(Protocol):
    """Computes probabilities; many threads may call it at once.

    Attributes:
        name: "openvino", "keras", or what a test calls its own.
        precision: "f32" or "bf16".
        batch_size: How many inputs at a time suit it best.
        parallel_batches: How many calls of `predict` at once keep it busy.
        note: Why it was chosen instead of another, one sentence, or "".
        is_open: Whether it is ready; one of several models waits for its first image.
    """

    name: str
    precision: str
    batch_size: int
    parallel_batches: int
    note: str

    @property
    def is_open(self) -> bool: ...

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Uncalibrated softmax outputs, then the features for the out-of-distribution check.

        Shape (n, n_classes + n_features), float32; no features where the model file has no
        statistics of them.

        Args:
            pixels: RGB, shape (n, image_size, image_size, 3), uint8.
        """


class KerasEngine:
    """The model as Keras runs it, on a GPU where TensorFlow finds one."""

    name = "keras"
    precision = "f32"
    batch_size = _KERAS_BATCH
    parallel_batches = 1
    is_open = True

    def __init__(self, model_path: Path, *, note: str = "") -> None:
        self._model = load_for_inference(model_path)
        self.note = note
        # Keras compiles its predict function at the first call and is not made for several at once.
        self._lock = threading.Lock()

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        outputs = []
        for start in range(0, len(pixels), _KERAS_BATCH):
            batch = pixels[start : start + _KERAS_BATCH].astype(np.float32)
            with self._lock:
                found = self._model.predict_on_batch(batch)
            found = found if isinstance(found, list) else [found]
            outputs.append(np.concatenate(found, axis=1, dtype=np.float32))
        return np.concatenate(outputs)


def open_engine(
    model_path: Path,
    *,
    image_size: int,
    engine: str | None = None,
    precision: str | None = None,
    for_batches: bool = False,
    views: int = 1,
    lazy: bool = False,
) -> Engine:
    """Open a model with the engine named, or with the one that suits this machine.

    Args:
        model_path: The `.h5` file.
        image_size: Side of the square input that its metadata states.
        engine: See `Detector.open`, as for precision and for_batches.
        views: How many network inputs one image makes.
        lazy: Let OpenVINO read and compile the model when the first image needs it. If it then
            cannot, those images get the error: Keras does not step in.

    Raises:
        ValueError: Engine or precision are unknown or do not go together.
        ModelFileError: The model cannot be read.
        RuntimeError: The engine named cannot run this model here.
    """
    for name, value, choices in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if value is not None and value not in choices:
            raise InputError(f"Expected {name} {' or '.join(choices)}, found {value!r}.")
    if engine == "keras" and precision not in (None, "f32"):
        raise InputError(f"Expected precision f32 with engine keras, found {precision}.")
    if engine == "keras":
        return KerasEngine(model_path)
    if engine is None and precision is None and _gpu_is_likely():
        keras_engine = KerasEngine(model_path, note="Keras was chosen for this machine's GPU.")
        if sees_gpu():
            return keras_engine

    try:
        from real_vs_ai.models.openvino_form import check_form
        from real_vs_ai.serving.openvino_engine import OpenVINOEngine

        check_form(model_path)
        opened = OpenVINOEngine(
            model_path,
            image_size=image_size,
            precision=precision,
            views=views,
            for_batches=for_batches,
        )
        if not lazy:
            opened.open()
        return opened
    except (ImportError, RuntimeError) as error:
        if engine is not None or precision not in (None, "f32"):
            raise
        reason = one_line(error, longest=300)
        if not keras_is_installed():
            raise MissingKerasError(
                f"OpenVINO cannot run {model_path} ({reason}), and Keras is not installed. "
                "Run: pip install -r requirements.txt"
            ) from error
        return KerasEngine(model_path, note=f"Keras is used because OpenVINO cannot: {reason}.")


def _gpu_is_likely() -> bool:
    """Whether importing TensorFlow to look for a GPU is worth its seconds.

    NVIDIA's driver brings nvidia-smi, and `tensorflow[and-cuda]` brings the `nvidia` packages.
    """
    has_driver = bool(shutil.which("nvidia-smi"))
    return has_driver and importlib.util.find_spec("nvidia") is not None and keras_is_installed()
