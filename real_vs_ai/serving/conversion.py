"""Make OpenVINO's form of a Keras model file, without Keras.

The layers and weights are read from the HDF5 file and built with OpenVINO's own operators. A file
with other layers than these is converted through TensorFlow, where that is installed.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import openvino as ov

from real_vs_ai.errors import RealVsAIError, one_line
from real_vs_ai.out_of_distribution.check import read_check
from real_vs_ai.serving.keras_graph import (
    StoredModel,
    UnsupportedGraphError,
    fold_normalisation,
    read_graph,
)
from real_vs_ai.serving.openvino_layers import build_network

IR_NAME = "model.xml"
# A cold start of Keras on a slow disk takes most of it; ResNet101 itself takes about 10.
_TIME_LIMIT_SECONDS = 600
_EXPORT = """
import sys
from pathlib import Path
from real_vs_ai.keras_models import load_for_inference

model = load_for_inference(Path(sys.argv[1]))
model.export(sys.argv[2], format="openvino", verbose=False)
"""


class ConversionError(RealVsAIError, RuntimeError):
    """The model has no OpenVINO form; the message is one line that says why."""


def convert(model_path: Path, *, output_dir: Path, stored: StoredModel | None = None) -> Path:
    """Write the model as OpenVINO IR, weights in float32.

    Args:
        model_path: A Keras model file (`.h5`).
        output_dir: An existing folder.
        stored: The same file, where it was opened before.

    Returns:
        The path of the `.xml`; its `.bin` lies in the same folder. Its first output is the softmax;
        where the file has statistics of a layer's features, these are the second.

    Raises:
        ConversionError: The file cannot be read, or holds layers that need TensorFlow, which is not
            installed or cannot convert them either.
    """
    try:
        model = build_model(model_path, stored=stored)
    except UnsupportedGraphError as error:
        return _convert_through_tensorflow(model_path, output_dir=output_dir, reason=str(error))
    ir_path = output_dir / IR_NAME
    ov.save_model(model, ir_path, compress_to_fp16=False)
    return ir_path


def build_model(
    model_path: Path, *, layer: str | None = None, stored: StoredModel | None = None
) -> ov.Model:
    """The model for any number of images; see `convert` for its outputs.

    Args:
        model_path: A Keras model file (`.h5`).
        layer: Name of the layer that gives the features; None for the one that the file names.
        stored: The same file, where it was opened before.

    Raises:
        UnsupportedGraphError: The file holds something that needs TensorFlow.
        ConversionError: It cannot be read, or OpenVINO refuses it.
    """
    try:
        graph = fold_normalisation(stored.graph() if stored else read_graph(model_path))
        network = build_network(graph, batch_size=None)
        outputs = [network.outputs[graph.output]]
        features = network.outputs.get(layer or feature_layer(model_path) or "")
        if features is not None and features.get_partial_shape().rank.get_length() == 2:
            outputs.append(features)
        return ov.Model(outputs, [network.parameter], "model")
    except (OSError, RuntimeError) as error:
        raise ConversionError(f"conversion to OpenVINO failed: {one_line(error)}") from error


def feature_layer(model_path: Path) -> str | None:
    """Name of the layer whose features the file has statistics of."""
    check = read_check(model_path)
    return check.layer if check else None


def _convert_through_tensorflow(model_path: Path, *, output_dir: Path, reason: str) -> Path:
    """Let Keras export the model in a process of its own; `reason` says why that is needed."""
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("keras") is None:
        raise ConversionError(
            f"conversion to OpenVINO failed: {model_path} needs TensorFlow for it, as {reason}. "
            "Run: pip install -r requirements.txt"
        )
    ir_path = output_dir / IR_NAME
    package_parent = str(Path(__file__).resolve().parents[2])
    search_path = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": os.pathsep.join(search_path),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    try:
        done = subprocess.run(
            # -P: do not import from the folder where the user stands.
            [sys.executable, "-P", "-c", _EXPORT, str(model_path.resolve()), str(ir_path)],
            env=os.environ | environment,
            capture_output=True,
            timeout=_TIME_LIMIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConversionError(f"conversion to OpenVINO failed: {error}") from error
    if done.returncode != 0 or not ir_path.is_file():
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1][:300] if lines else f"exit code {done.returncode}"
        raise ConversionError(f"conversion to OpenVINO failed: {reason}")
    return ir_path
