"""Write into a Keras HDF5 file the graph that OpenVINO runs, and read it back without TensorFlow.

OpenVINO converts the network as TensorFlow traces it. The file's weights are inputs of that graph,
each under the name of its dataset, and reading puts the datasets' arrays in their place. So no
weight lies in the file twice, and new or halved weights need no new graph.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import openvino as ov
from openvino import opset13 as ops

from real_vs_ai.core.errors import RealVsAIError, one_line
from real_vs_ai.core.files import atomic_write
from real_vs_ai.models.model_file import check_weights

if TYPE_CHECKING:
    import keras

_GROUP = "real_vs_ai_openvino"
_FORMAT_VERSION = 1
_WEIGHTS = "model_weights"
# Names inside the graph; those of weights and layers follow a prefix, so that none is one of these.
_IMAGES, _PROBABILITIES, _WEIGHT, _LAYER = "images", "probabilities", "weight:", "layer:"
# A program that writes the graph into the file it is given.
_WRITE = """
import pathlib, sys
from real_vs_ai.models import keras_models
from real_vs_ai.models import openvino_form
path = pathlib.Path(sys.argv[1])
openvino_form.write_form(path, keras_models.load_model(path))
"""
# Numbers in a constant above which it shares the array's memory.
_SHARED_SIZE = 4096


class OpenVINOFormError(RealVsAIError, RuntimeError):
    """OpenVINO cannot compute the file's network; the message is one line that says why."""


def check_form(path: Path) -> None:
    """Look whether a model file holds a graph that fits its network; quick.

    Raises:
        OpenVINOFormError: It holds none, or that of another network.
        ModelFileError: Its options do not fit its weights.
    """
    check_weights(path)
    try:
        with h5py.File(path, "r") as file:
            _find_form(file)
    except (OSError, KeyError) as error:
        raise OpenVINOFormError(f"the file cannot be read: {one_line(error)}") from error


def _find_form(file: h5py.File) -> h5py.Group:
    form = file.get(_GROUP)
    is_own = form is not None and form.attrs["fingerprint"] == _fingerprint(file)
    if not is_own or form.attrs["format_version"] != _FORMAT_VERSION:
        found = "no graph" if form is None else "the graph of another network or version"
        raise OpenVINOFormError(
            f"the file holds {found} for OpenVINO; this command writes one: "
            f"python ModelEvaluation.py --openvino --model {file.filename}"
        )
    return form


def read_form(path: Path, *, layer: str | None) -> ov.Model:
    """The network of a model file for any number of images, weights in float32.

    Its input are images, float32, 0 to 255, shape (n, size, size, 3). Its first output is the
    softmax. The features of the layer, one row for each image, are the second where the network has
    such a layer.

    Raises:
        OpenVINOFormError: The file holds no graph, that of another network, or a damaged one.
        ModelFileError: Its options do not fit its weights.
    """
    check_weights(path)
    try:
        with h5py.File(path, "r") as file:
            form = _find_form(file)
            graph = ov.Core().read_model(form["xml"][()].tobytes(), form["bin"][()].tobytes())
            _fill(graph, file[_WEIGHTS])
        names = [_PROBABILITIES, f"{_LAYER}{layer}"]
        known = {name: output for output in graph.outputs for name in output.names}
        results = [known[name].get_node().input_value(0) for name in names if name in known]
        return ov.Model(results, [graph.input(_IMAGES).get_node()], "model")
    except OpenVINOFormError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise OpenVINOFormError(f"its graph cannot be read: {one_line(error)}") from error


def write_form(path: Path, model: keras.Model) -> None:
    """Put the graph into a model file; a killed process leaves the old file or the new one.

    Args:
        path: An HDF5 file that Keras wrote of this very network; the weights may have changed.
        model: In float32.

    Raises:
        OpenVINOFormError: OpenVINO cannot convert the network.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        _write_with_tensorflow(path)
        return
    with atomic_write(path, edit=True) as staging, h5py.File(staging, "r+") as file:
        try:
            graph = _convert(model, dict(_name_weights(model, file[_WEIGHTS])))
        # OpenVINO and TensorFlow raise whatever a layer happens to cause.
        except Exception as error:
            raise OpenVINOFormError(f"conversion to OpenVINO failed: {one_line(error)}") from error
        if _GROUP in file:
            del file[_GROUP]
        form = file.create_group(_GROUP)
        form.attrs["format_version"] = _FORMAT_VERSION
        form.attrs["fingerprint"] = _fingerprint(file)
        with tempfile.TemporaryDirectory(prefix="real-vs-ai-") as folder:
            xml, constants = Path(folder, "model.xml"), Path(folder, "model.bin")
            ov.serialize(graph, xml, constants)
            text = np.frombuffer(xml.read_bytes(), np.uint8)
            form.create_dataset("xml", data=text, compression="gzip")
            form["bin"] = np.frombuffer(constants.read_bytes(), np.uint8)


def _convert(model: keras.Model, weights: dict[int, str]) -> ov.Model:
    """The graph from images and weights to the softmax and to every layer with one row for each.

    Args:
        weights: Dataset of each variable that the file holds, by the variable's `id`.
    """
    import keras
    import tensorflow as tf

    layers = [layer for layer in model.layers if _gives_rows(layer)]
    network = keras.Model(model.inputs[0], [model.outputs[0], *(layer.output for layer in layers)])
    learnt = [v for v in network.variables if id(v) in weights]
    # What the file does not hold are the seeds of noise, which nothing uses here.
    seeds = {id(v): v.numpy() for v in network.variables if id(v) not in weights}

    def compute(images: Any, *arrays: Any) -> list[Any]:
        values = {**seeds, **dict(zip(map(id, learnt), arrays, strict=True))}
        variables = (network.trainable_variables, network.non_trainable_variables)
        given = ([values[id(v)] for v in some] for some in variables)
        outputs, _ = network.stateless_call(*given, images, training=False)
        return [tf.identity(output, f"output{i}") for i, output in enumerate(outputs)]

    shapes = [tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, "images")]
    shapes += [tf.TensorSpec(v.shape, tf.float32, f"array{i}") for i, v in enumerate(learnt)]
    graph = ov.convert_model(tf.function(compute).get_concrete_function(*shapes))
    for i, variable in enumerate(learnt):
        _rename(graph.input(f"array{i}"), _WEIGHT + weights[id(variable)])
    for i, name in enumerate([_PROBABILITIES, *(_LAYER + layer.name for layer in layers)]):
        graph.output(f"output{i}:0").tensor.add_names({name})
    return graph


def _gives_rows(layer: keras.Layer) -> bool:
    import keras

    # The output of a model used as a layer is one of its own graph, not of this one.
    is_plain = not isinstance(layer, keras.Model) and len(layer._inbound_nodes) == 1
    return is_plain and len(getattr(layer.output, "shape", ())) == 2


def _name_weights(model: keras.Model, group: h5py.Group) -> Iterator[tuple[int, str]]:
    """The `id` of each variable, and its dataset, in the order in which Keras writes them."""
    for layer in model.layers:
        weights = layer.trainable_weights + layer.non_trainable_weights
        stored = group[layer.name].attrs["weight_names"] if weights else []
        for variable, name in zip(weights, stored, strict=True):
            text = name.decode() if isinstance(name, bytes) else str(name)
            yield id(variable), f"{layer.name}/{text}"


def _rename(port: ov.Output, name: str) -> None:
    port.get_node().set_friendly_name(name)
    port.tensor.set_names({name})


def _fill(graph: ov.Model, weights: h5py.Group) -> None:
    """Put the file's weights in the place of the graph's inputs.

    Raises:
        KeyError, OpenVINOFormError: They are not there, or of another shape.
    """
    for parameter in graph.get_parameters():
        name = parameter.get_friendly_name()
        if not name.startswith(_WEIGHT):
            continue
        # Compact files hold them in float16.
        array = np.asarray(weights[name.removeprefix(_WEIGHT)][()], np.float32)
        if list(array.shape) != list(parameter.get_output_shape(0)):
            raise OpenVINOFormError(f"its graph does not fit: {name} has the shape {array.shape}")
        for user in parameter.output(0).get_target_inputs():
            node = user.get_node()
            # TensorFlow's kernels have another order of axes. OpenVINO needs twice NumPy's time.
            if node.get_type_name() == "Transpose":
                order = node.input_value(1).get_node().data
                node.output(0).replace(_constant(array.transpose(order)))
        parameter.output(0).replace(_constant(array))


def _constant(values: np.ndarray) -> ov.Output:
    array = np.ascontiguousarray(values)
    # A large one is not copied; OpenVINO keeps the array alive.
    return ops.constant(array, shared_memory=array.size > _SHARED_SIZE).output(0)


def _fingerprint(file: h5py.File) -> str:
    """SHA-256 of the layers and their options, which the graph was made from."""
    return hashlib.sha256(str(file.attrs["model_config"]).encode()).hexdigest()


def _write_with_tensorflow(path: Path) -> None:
    """Let another process do it, since Keras runs on another library here."""
    environment = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", _WRITE, path.resolve()],
        env=os.environ | environment,
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = one_line(RuntimeError(done.stderr.strip().rpartition("\n")[2]))
        raise OpenVINOFormError(f"conversion to OpenVINO failed: {reason}")
