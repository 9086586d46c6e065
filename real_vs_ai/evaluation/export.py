"""Export a model to other formats, and check each file before it takes its name.

A file whose probabilities differ from the HDF5 model's by more than 0.001 (0.005 where weights are
halved) is not written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.tables import Table
from real_vs_ai.files import put_in_place, write_json
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import OutOfDistributionCheck, write_check

if TYPE_CHECKING:
    import keras


_LARGEST_DIFFERENCE = 1e-3
# float16 keeps 11 bits of each weight; over a hundred layers that adds up to a little more.
_LARGEST_DIFFERENCE_OF_HALVES = 5e-3
_BATCH = 8
_REQUIREMENTS = 'pip install -e ".[export]"'


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
        load: Takes the path; returns a function from float32 images to probabilities.
        largest_difference: Of a probability from the HDF5 model's.
        holds_check: Whether the file also holds the out-of-distribution check.
    """

    file_name: str
    write: Callable[[keras.Model, Path, ModelMetadata], None]
    load: Callable[[Path], Callable[[np.ndarray], np.ndarray]]
    largest_difference: float = _LARGEST_DIFFERENCE
    holds_check: bool = False


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
    expected = model.predict(pixels.astype(np.float32), batch_size=_BATCH, verbose=0)
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
                file_format.write(model, written, metadata)
                if file_format.holds_check and check is not None:
                    write_check(written, check)
                found = _predict(file_format.load(written), pixels)
            difference = float(np.max(np.abs(found - expected)))
            if not difference <= file_format.largest_difference:
                raise InputError(f"probabilities differ by up to {difference:.2g}")
            target = folder / file_format.file_name
            put_in_place(written, target)
        except ImportError as error:
            return ExportResult(name, None, None, 0, f"{_first_line(error)}; {_REQUIREMENTS}")
        except Exception as error:
            # Converters raise whatever their insides raise, and the other formats are still wanted.
            return ExportResult(name, None, difference, len(pixels), _first_line(error))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return ExportResult(name, target, difference, len(pixels), "")

    return list(map(export, formats))


def _predict(predict: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    batches = (pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH))
    return np.concatenate([np.asarray(predict(batch.astype(np.float32))) for batch in batches])


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


def _write_keras(model: keras.Model, path: Path, metadata: ModelMetadata) -> None:
    model.save(path)


def _load_keras(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    return keras.models.load_model(path, compile=False).predict_on_batch


def _write_compact(model: keras.Model, path: Path, metadata: ModelMetadata) -> None:
    """Write the HDF5 file with large float32 arrays as float16, all of them compressed."""
    from real_vs_ai.keras_models import save_model

    whole = path.with_name("float32.h5")
    save_model(model, whole, metadata=metadata)
    with h5py.File(whole, "r") as old, h5py.File(path, "x", track_order=True) as new:
        _copy_group(old, new)


def _export_as(keras_format: str) -> Callable[[keras.Model, Path, ModelMetadata], None]:
    def write(model: keras.Model, path: Path, metadata: ModelMetadata) -> None:
        # OpenVINO's format is two files, so its path is a folder here.
        target = path / "model.xml" if keras_format == "openvino" else path
        target.parent.mkdir(parents=True, exist_ok=True)
        # ONNX export asks for a model that has been called.
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
    index = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]

    def predict(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(index, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, images)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return predict


# Keras exports for the backend it runs on, and a process has one backend.
_EXPORT_FOR_TORCH = """
import sys, keras, torch
model = keras.models.load_model(sys.argv[1], compile=False)
batch = {0: torch.export.Dim("batch", min=1, max=4096)}
model.export(sys.argv[2], format="torch", dynamic_shapes=batch, verbose=False)
"""


def _write_torch(model: keras.Model, path: Path, metadata: ModelMetadata) -> None:
    if importlib.util.find_spec("torch") is None:
        raise ImportError("No module named 'torch'")
    source = path.with_name("source.keras")
    _without_dots(model).save(source)
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT_FOR_TORCH, source, path],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"PyTorch: {done.stderr.strip().splitlines()[-1:]}")


def _without_dots(model: keras.Model) -> keras.Model:
    """The same model with layer names that PyTorch accepts."""
    import keras

    def renamed(layer: keras.Layer) -> keras.Layer:
        config = {**layer.get_config(), "name": layer.name.replace(".", "_")}
        return layer.__class__.from_config(config)

    if not any("." in layer.name for layer in model.layers):
        return model
    clone = keras.models.clone_model(model, clone_function=renamed)
    clone.set_weights(model.get_weights())
    return keras.Model(clone.inputs[0], clone.outputs[0])


def _load_torch(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    network = torch.export.load(path).module()

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return predict


FORMATS = {
    "compact": _Format(
        "model.h5",
        _write_compact,
        _load_keras,
        largest_difference=_LARGEST_DIFFERENCE_OF_HALVES,
        holds_check=True,
    ),
    "keras": _Format("model.keras", _write_keras, _load_keras),
    "savedmodel": _Format("saved_model", _export_as("tf_saved_model"), _load_saved_model),
    "onnx": _Format("model.onnx", _export_as("onnx"), _load_onnx),
    "openvino": _Format("openvino", _export_as("openvino"), _load_openvino),
    "litert": _Format("model.tflite", _export_as("litert"), _load_litert),
    "torch": _Format("model.pt2", _write_torch, _load_torch),
}


# Smaller arrays (biases, statistics) are few bytes; they keep their precision.
_SMALLEST_HALVED = 4096
_LARGEST_HALF = float(np.finfo(np.float16).max)
_DEFLATE_LEVEL = 9


def _copy_group(old: h5py.Group, new: h5py.Group) -> None:
    _copy_attributes(old, new)
    for name, item in old.items():
        if isinstance(item, h5py.Group):
            _copy_group(item, new.create_group(name, track_order=True))
        else:
            _copy_array(item, new, name)


def _copy_array(old: h5py.Dataset, parent: h5py.Group, name: str) -> None:
    values = old[()]
    compression = {}
    if old.size >= _SMALLEST_HALVED and old.dtype == np.float32:
        if not np.all(np.abs(values) <= _LARGEST_HALF):
            raise InputError(
                f"This model cannot be stored as float16, as weights exceed ±{_LARGEST_HALF:g} in "
                f"{old.name}."
            )
        values = values.astype(np.float16)
        compression = {"chunks": True, "shuffle": True, "compression": "gzip"}
        compression["compression_opts"] = _DEFLATE_LEVEL
    new = parent.create_dataset(name, data=values, **compression)
    _copy_attributes(old, new)


def _copy_attributes(old: h5py.Group | h5py.Dataset, new: h5py.Group | h5py.Dataset) -> None:
    for key, value in old.attrs.items():
        new.attrs[key] = value
