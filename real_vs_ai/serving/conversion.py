"""Make OpenVINO's form of a Keras model file, without Keras.

    convert(Path("models/released/model.h5"), output_dir=Path("converted"))   # model.xml, model.bin
    model = build_model(Path("models/released/model.h5"))                     # the same in memory

The layers and weights are read from the HDF5 file and built with OpenVINO's own operators. A file
with other layers than these is converted through TensorFlow, where that is installed.
"""

from __future__ import annotations

from pathlib import Path

import openvino as ov

from real_vs_ai.errors import one_line
from real_vs_ai.out_of_distribution import read_check
from real_vs_ai.serving.keras_graph import UnsupportedGraphError, fold_normalisation, read_graph
from real_vs_ai.serving.openvino_layers import build_network
from real_vs_ai.serving.tensorflow_conversion import (
    IR_NAME,
    ConversionError,
    convert_through_tensorflow,
)

__all__ = ["IR_NAME", "ConversionError", "build_model", "convert"]


def convert(model_path: Path, *, output_dir: Path) -> Path:
    """Write the model as OpenVINO IR, weights in float32.

    Args:
        model_path: A Keras model file (`.h5`).
        output_dir: An existing folder.

    Returns:
        The path of the `.xml`; its `.bin` lies in the same folder. Its first output is the softmax;
        where the file has statistics of a layer's features, these are the second.

    Raises:
        ConversionError: The file cannot be read, or holds layers that need TensorFlow, which is not
            installed or cannot convert them either.
    """
    try:
        model = build_model(model_path)
    except UnsupportedGraphError as error:
        return convert_through_tensorflow(model_path, output_dir=output_dir, reason=str(error))
    ir_path = output_dir / IR_NAME
    ov.save_model(model, ir_path, compress_to_fp16=False)
    return ir_path


def build_model(model_path: Path) -> ov.Model:
    """The model for any number of images; see `convert` for its outputs.

    Raises:
        UnsupportedGraphError: The file holds something that needs TensorFlow.
        ConversionError: It cannot be read, or OpenVINO refuses it.
    """
    try:
        graph = fold_normalisation(read_graph(model_path))
        network = build_network(graph, batch_size=None)
        outputs = [network.outputs[graph.output]]
        features = network.outputs.get(feature_layer(model_path) or "")
        if features is not None and features.get_partial_shape().rank.get_length() == 2:
            outputs.append(features)
        return ov.Model(outputs, [network.parameter], "model")
    except (OSError, RuntimeError) as error:
        raise ConversionError(f"conversion to OpenVINO failed: {one_line(error)}") from error


def feature_layer(model_path: Path) -> str | None:
    """Name of the layer whose features the file has statistics of."""
    check = read_check(model_path)
    return check.layer if check else None
