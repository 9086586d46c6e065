"""Export a model to other formats, and check each file before it takes its name.

Keras writes them, but for `compact` (an HDF5 file with halved weights) and `pth` (PyTorch). A file
whose probabilities differ too much from the HDF5 model's is not written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from real_vs_ai.core.config import SEED
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import atomic_write, put_in_place, write_json
from real_vs_ai.evaluation.tables import Table
from real_vs_ai.evaluation.torch_state import load_torch, write_torch
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import OutOfDistributionCheck, write_check

if TYPE_CHECKING:
    import keras

_BATCH = 8
# Of a probability from Keras'.
_LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class ExportResult:
    """The outcome of one format.

    Attributes:
        path: The file or folder, or None when nothing was written.
        difference: Largest difference of a probability from the HDF5 model's on `n` images.
        error: Why nothing was written, or "".
    """

    name: str
    path: Path | None
    difference: float | None
    n: int
    error: str


@dataclass(frozen=True)
class _Format:
    """How a format is written and read again.

    Attributes:
        write: Takes the model, the path, and its metadata and check.
        load: Takes the path; returns a function from float32 images to probabilities.
        largest_difference: Of a probability from the HDF5 model's.
        extra: The packages that it needs, as pyproject.toml names them.
    """

    file_name: str
    write: Callable[[keras.Model, Path, ModelMetadata, OutOfDistributionCheck | None], None]
    load: Callable[[Path], Callable[[np.ndarray], np.ndarray]]
    largest_difference: float = _LARGEST_DIFFERENCE
    extra: str = "training"


def export_model(
    model: keras.Model,
    *,
    formats: Sequence[str],
    folder: Path,
    metadata: ModelMetadata,
    check: OutOfDistributionCheck | None,
    pixels: np.ndarray,
) -> list[ExportResult]:
    """Write and check each format; one that fails does not stop the others.

    Args:
        folder: Takes the files; earlier exports of the same format are replaced.
        metadata: Class names, image size and calibration, also written as `metadata.json`.
        pixels: Real images to check on, shape (n_images, size, size, 3), uint8.
    """
    import keras

    # Cloned models take a list of one input; exported signatures should take the input itself.
    model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    pixels = pixels.astype(np.float32)
    expected = model.predict(pixels, batch_size=_BATCH, verbose=0)
    batches = [pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH)]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metadata.json", {**dataclasses.asdict(metadata), "metrics": {}})

    def export(name: str) -> ExportResult:
        file_format, difference = FORMATS[name], None
        staging = folder / f".{name}.{os.getpid()}"
        staging.mkdir(exist_ok=True)
        try:
            written = staging / file_format.file_name
            # Converters talk on standard output; what they have to say comes as an error.
            with contextlib.redirect_stdout(io.StringIO()):
                file_format.write(model, written, metadata, check)
                predict = file_format.load(written)
                found = np.concatenate([np.asarray(predict(batch)) for batch in batches])
            difference = float(np.max(np.abs(found - expected)))
            if not difference <= file_format.largest_difference:
                raise InputError(f"probabilities differ by up to {difference:.2g}")
            target = folder / file_format.file_name
            put_in_place(written, target)
        except ImportError as error:
            needed = f'pip install -e ".[{file_format.extra}]"'
            return ExportResult(name, None, None, 0, f"{_first_line(error)}; {needed}")
        except Exception as error:
            # Converters raise whatever their insides raise, and the other formats are still wanted.
            return ExportResult(name, None, difference, len(pixels), _first_line(error))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return ExportResult(name, target, difference, len(pixels), "")

    return list(map(export, formats))


def add_openvino_form(path: Path) -> float:
    """Write into a model file the graph that OpenVINO runs, checked on random pixels.

    Returns:
        The largest difference of a probability from Keras'.

    Raises:
        InputError: It is not an HDF5 file of Keras.
        OpenVINOFormError: OpenVINO cannot run the network, or computes other probabilities.
    """
    from real_vs_ai.models.keras_models import USUAL_SIZE, load_model
    from real_vs_ai.models.openvino_form import OpenVINOFormError, write_form
    from real_vs_ai.serving.openvino_engine import OpenVINOEngine

    if not h5py.is_hdf5(path):
        raise InputError(f"Expected an HDF5 file (.h5) to write into, received {path}.")
    model = load_model(path)
    import keras

    size, n_classes = model.input_shape[1] or USUAL_SIZE, model.output_shape[-1]
    pixels = np.random.default_rng(SEED).integers(0, 256, (_BATCH, size, size, 3), np.uint8)
    network = keras.Model(model.inputs[0], model.outputs[0])
    expected = np.asarray(network(pixels.astype(np.float32), training=False))
    with atomic_write(path, edit=True) as staging:
        write_form(staging, model)
        engine = OpenVINOEngine(staging, image_size=size, precision="f32", for_batches=True)
        probabilities = engine.predict(pixels)[:, :n_classes]
        difference = float(np.max(np.abs(probabilities - expected)))
        if not difference <= _LARGEST_DIFFERENCE:
            raise OpenVINOFormError(
                f"OpenVINO's probabilities differ from Keras' by up to {difference:.2g}"
            )
    return difference


def exports_table(results: Sequence[ExportResult]) -> Table:
    """Where each format was written, or why not."""
    rows = [
        [
            r.name,
            r.path.as_posix() if r.path else f"not written: {r.error}",
            r.n,
            "" if r.difference is None else f"{r.difference:.1e}",
        ]
        for r in results
    ]
    return ["format", "file", "checked on", "largest difference"], rows


def _first_line(error: BaseException) -> str:
    # Keras colours its errors for terminals.
    text = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split())
    return text[:100] or type(error).__name__


def _write_compact(
    model: keras.Model, path: Path, metadata: ModelMetadata, check: OutOfDistributionCheck | None
) -> None:
    """Write the HDF5 file with large float32 arrays as float16, all of them compressed."""
    from real_vs_ai.models.keras_models import save_model

    whole = path.with_name("float32.h5")
    save_model(model, whole, metadata=metadata)
    with h5py.File(whole, "r") as old, h5py.File(path, "x", track_order=True) as new:
        new.attrs.update(old.attrs)
        old.visititems(lambda name, item: _copy(item, new, name))
    # The copied graph is that of the same layers, and finds the halved weights under their names.
    if check is not None:
        write_check(path, check)


def _load_keras(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    model = keras.models.load_model(path, compile=False)
    return keras.Model(model.inputs[0], model.outputs[0]).predict_on_batch


def _export_as(keras_format: str, *, inside: str = "") -> Callable[..., None]:
    """Keras' own export.

    Args:
        inside: The file's name, where the path is a folder of several files.
    """

    def write(model: keras.Model, path: Path, metadata: ModelMetadata, *_: Any) -> None:
        target = path / inside if inside else path
        target.parent.mkdir(parents=True, exist_ok=True)
        # The export asks for a model that has been called.
        model(np.zeros((1, metadata.image_size, metadata.image_size, 3), np.float32))
        model.export(str(target), format=keras_format, verbose=False)

    return write


def _load_saved_model(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    # The layer keeps the signature's graph alive.
    return keras.layers.TFSMLayer(path, call_endpoint="serve")


def _load_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _load_openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path / "model.xml", "CPU", hint)
    return lambda images: compiled(images)[0]


def _load_litert(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    signature = interpreter.get_signature_runner()
    (name,) = signature.get_input_details()
    return lambda images: next(iter(signature(**{name: images}).values()))


FORMATS = {
    # float16 keeps 11 bits of each weight; over a hundred layers that adds up.
    "compact": _Format("model.h5", _write_compact, _load_keras, 5e-3),
    "keras": _Format("model.keras", lambda model, path, *_: model.save(path), _load_keras),
    "savedmodel": _Format("saved_model", _export_as("tf_saved_model"), _load_saved_model),
    "openvino": _Format("openvino", _export_as("openvino", inside="model.xml"), _load_openvino),
    "onnx": _Format("model.onnx", _export_as("onnx"), _load_onnx, extra="onnx"),
    "litert": _Format("model.tflite", _export_as("litert"), _load_litert, extra="litert"),
    "pth": _Format(
        "model.pth", lambda model, path, *_: write_torch(model, path), load_torch, 1e-4, "torch"
    ),
}


# Smaller arrays (biases, statistics) are few bytes; they keep their precision.
_SMALLEST_HALVED = 4096
_LARGEST_HALF = float(np.finfo(np.float16).max)
_DEFLATE_LEVEL = 9


def _copy(old: h5py.Group | h5py.Dataset, file: h5py.File, name: str) -> None:
    """Copy a group without what is in it, or an array."""
    if isinstance(old, h5py.Group):
        file.create_group(name, track_order=True).attrs.update(old.attrs)
        return
    values, compression = old[()], {}
    if old.size >= _SMALLEST_HALVED and old.dtype == np.float32:
        if not np.all(np.abs(values) <= _LARGEST_HALF):
            raise InputError(
                f"This model cannot be stored as float16, as weights exceed ±{_LARGEST_HALF:g} in "
                f"{old.name}."
            )
        values = values.astype(np.float16)
        compression = {"chunks": True, "shuffle": True, "compression": "gzip"}
        compression["compression_opts"] = _DEFLATE_LEVEL
    file.create_dataset(name, data=values, **compression).attrs.update(old.attrs)
