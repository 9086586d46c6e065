"""Run a model file compiled by OpenVINO for this CPU.

Two compiled forms share the work: one image at once on all cores (the shortest wait), and batches
side by side (the most images a second). The file is read, and each form compiled, when it is first
needed. Crops need the second form alone: two batches side by side answer an image sooner than one
batch on all cores.
"""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino as ov
from openvino.preprocess import PrePostProcessor

from real_vs_ai.core.files import file_stamp
from real_vs_ai.core.parallel import available_workers
from real_vs_ai.models.model_file import ModelFileError
from real_vs_ai.models.openvino_form import read_form
from real_vs_ai.out_of_distribution.check import read_check

# About this many pixels a batch: measured on ResNet101, larger ones are no faster.
_PIXELS_IN_BATCH = 4 * 224 * 224
_LARGEST_BATCH = 32
_TABLES = threading.Lock()


class OpenVINOEngine:
    """Runs the compiled forms of one model; see `Engine`."""

    name = "openvino"
    note = ""

    def __init__(
        self,
        model_path: Path,
        *,
        image_size: int,
        precision: str | None = None,
        views: int = 1,
        for_batches: bool = False,
        layer: str | None = None,
    ) -> None:
        """Prepare to run the model; nothing is read before `open`.

        Args:
            image_size: Side of the square input, in pixels.
            precision: None for bf16 where the processor has it, but float32 for crops.
            views: Network inputs that one image makes.
            for_batches: Compute the last few images in the same way as whole batches, so that no
                result depends, not even in its last digit, on how many images came with it.
            layer: Name of the layer whose outputs follow the probabilities; None for the one whose
                statistics the file holds, if any.
        """
        self._core = ov.Core()
        # Statistics of a crop's early stages do not survive bf16: docs/serving.md has the figures.
        own = best_precision(self._core) if views == 1 else "f32"
        self.precision = precision or own
        # Of crops, half of those of an image: two batches side by side answer it soonest.
        suitable = (views + 1) // 2 if views > 1 else _PIXELS_IN_BATCH // image_size**2
        self.batch_size = min(max(suitable, 1), _LARGEST_BATCH)
        self._model_path, self._image_size, self._layer = model_path, image_size, layer
        # Files are replaced while models are served: the metadata would not fit other weights.
        self._stamp = file_stamp(model_path)
        self._in_batches = for_batches or views > 1
        # Several processes that share a machine each have a number of cores of their own.
        self._threads = os.environ.get("REAL_VS_AI_THREADS")
        # No more run at once; one more waits ready.
        self.parallel_batches = int(self._threads or available_workers()) + 1
        self._model: ov.Model | None = None
        # For whole batches (True) and for single images (False).
        self._forms: dict[bool, _CompiledForm] = {}
        self._compiling = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether a form is compiled."""
        return bool(self._forms)

    def open(self) -> None:
        """Compile the form that is needed first: for whole batches, or for single images.

        Raises:
            OpenVINOFormError: The file holds no graph that OpenVINO can run.
            RuntimeError: OpenVINO cannot compile it.
            ModelFileError: Its input is not (n, image_size, image_size, 3), or it has no such
                layer with one row of outputs for each image; or the file was replaced.
        """
        self._form(self._in_batches)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        # A batch is filled up to its size; for a few images that costs more than it gains.
        if self._in_batches or len(pixels) > max(1, self.batch_size // 4):
            return self._form(True).infer_all(pixels)
        single = self._form(False)
        return np.concatenate([single.infer(image[None]) for image in pixels])

    def _form(self, in_batches: bool) -> _CompiledForm:
        # Without the lock, so that single images are answered while the other form is compiled.
        if in_batches not in self._forms:
            with self._compiling:
                if in_batches not in self._forms:
                    self._forms[in_batches] = self._compile(in_batches)
        return self._forms[in_batches]

    def _compile(self, in_batches: bool) -> _CompiledForm:
        if self._model is None:
            self._model = self._read()
        batch_size, hint = (self.batch_size, "THROUGHPUT") if in_batches else (1, "LATENCY")
        settings = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": self.precision}
        if self._threads:
            settings["INFERENCE_NUM_THREADS"] = self._threads
        model = self._model.clone()
        model.reshape([batch_size, self._image_size, self._image_size, 3])
        preprocessing = PrePostProcessor(model)
        preprocessing.input().tensor().set_element_type(ov.Type.u8)
        compiled = self._core.compile_model(preprocessing.build(), "CPU", settings)
        if self._forms or self._in_batches:
            # No other form will be compiled, so the weights need not be kept.
            self._model = None
        return _CompiledForm(compiled, batch_size=batch_size)

    def _read(self) -> ov.Model:
        check = None if self._layer else read_check(self._model_path)
        layer = check.layer if check else self._layer
        model, size = read_form(self._model_path, layer=layer), self._image_size
        if file_stamp(self._model_path) != self._stamp:
            raise ModelFileError(
                f"{self._model_path} was replaced after it was opened; open it again, or start the "
                "program again."
            )
        shape = model.input().partial_shape
        if not shape.compatible(ov.PartialShape([-1, size, size, 3])):
            raise ModelFileError(
                f"Expected a model input of shape (n, {size}, {size}, 3) as its metadata says, "
                f"found {shape}. Save the model again with ModelTraining.py."
            )
        if self._layer is not None and len(model.outputs) < 2:
            raise ModelFileError(
                f"Expected one row of features from {self._layer} in {self._model_path}."
            )
        return model


class _CompiledForm:
    """A compiled model of fixed batch size with the requests that may run side by side."""

    def __init__(self, compiled: ov.CompiledModel, *, batch_size: int) -> None:
        _build_tables()
        self.batch_size = batch_size
        self.request_count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(self.request_count):
            self._requests.put(compiled.create_infer_request())
        self._workers = ThreadPoolExecutor(self.request_count, thread_name_prefix="openvino")

    def infer_all(self, pixels: np.ndarray) -> np.ndarray:
        """Outputs side by side of any number of images."""
        size = self.batch_size
        if len(pixels) <= size:
            return self.infer(pixels)
        chunks = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        return np.concatenate(list(self._workers.map(self.infer, chunks)))

    def infer(self, pixels: np.ndarray) -> np.ndarray:
        """Outputs side by side of at most `batch_size` images, waiting for a free request."""
        count = len(pixels)
        if count < self.batch_size:
            missing = (self.batch_size - count, *pixels.shape[1:])
            pixels = np.concatenate([pixels, np.zeros(missing, dtype=np.uint8)])
        request = self._requests.get()
        try:
            found = request.infer(np.ascontiguousarray(pixels))
            return np.concatenate([values[:count] for values in found.to_tuple()], axis=1)
        finally:
            self._requests.put(request)


def _build_tables() -> None:
    """Let one thread alone build OpenVINO's tables of types.

    Its Python binding builds them when an array is first read. Two threads that do so at once wait
    for each other for ever: one for Python's lock, the other, which holds it, for the tables.
    """
    with _TABLES:
        _ = ov.Tensor(np.zeros(1, np.uint8)).data


def best_precision(core: ov.Core) -> str:
    """ "bf16" where the processor computes in it, otherwise "f32"."""
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    # OpenVINO names what the processor has, even where these limit oneDNN to less.
    is_limited = not {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}.isdisjoint(os.environ)
    return "bf16" if has_bf16 and not is_limited else "f32"
