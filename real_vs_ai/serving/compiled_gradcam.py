"""Grad-CAM without Keras: the gradient is part of a compiled graph.

    explain = CompiledGradCam(Path("models/released/model.h5"))
    heatmaps = explain(images, class_indices=[0])

It computes what `gradcam.GradCam` computes, for models whose layers `gradients` has rules for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from real_vs_ai.errors import InputError, one_line
from real_vs_ai.gradcam import FEWEST_CELLS, enlarge
from real_vs_ai.images import resize_image
from real_vs_ai.serving.gradients import gradient
from real_vs_ai.serving.keras_graph import UnsupportedGraphError, fold_normalisation, read_graph
from real_vs_ai.serving.openvino_layers import Network, build_network

# Added to the logit of the class to explain, so that it has no share in the softmax of the others.
_EXCLUDED = -1e30


class CompiledGradCam:
    """Heatmaps of one model for many images; see `gradcam.GradCam`."""

    def __init__(self, model_path: Path) -> None:
        """Read the model and compile its forward and backward pass, in float32.

        Raises:
            UnsupportedGraphError: The model needs Keras for its gradients.
            OSError: It is no HDF5 file.
        """
        graph = fold_normalisation(read_graph(model_path))
        try:
            network = build_network(graph, batch_size=1)
            self.layer_name = _feature_layer(network)
            model = _build(network, output=graph.output, maps=network.outputs[self.layer_name])
            settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
            self._compiled = ov.Core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise UnsupportedGraphError(f"OpenVINO refuses it: {one_line(error)}") from error
        self._image_size = int(model.input(0).get_shape()[1])
        self._n_classes = int(model.input(1).get_shape()[1])

    def __call__(
        self, images: Sequence[np.ndarray], *, class_indices: Sequence[int]
    ) -> list[np.ndarray]:
        """One heatmap of each image's own size, shape (height, width), float32, 0 to 1."""
        if any(not 0 <= index < self._n_classes for index in class_indices):
            raise InputError(
                f"Expected class indices below {self._n_classes}, found {class_indices}."
            )
        heatmaps = []
        for pixels, index in zip(images, class_indices, strict=True):
            height, width = pixels.shape[:2]
            inputs = resize_image(np.asarray(pixels, dtype=np.uint8), self._image_size)
            chosen = np.zeros((1, self._n_classes), np.float32)
            chosen[0, index] = 1
            cells = self._compiled([inputs[None].astype(np.float32), chosen])[0][0]
            heatmaps.append(enlarge(cells, height=height, width=width))
        return heatmaps


def _feature_layer(network: Network) -> str:
    """The deepest layer with feature maps of enough cells, or the deepest one with any."""
    maps = {
        name: output.get_partial_shape()
        for name, output in network.outputs.items()
        if output.get_partial_shape().rank.get_length() == 4
    }
    # The input itself is no feature map.
    names = list(maps)[1:]
    if not names or any(shape.is_dynamic for shape in maps.values()):
        raise UnsupportedGraphError("it has no feature maps of known size")
    large = [name for name in names if min(maps[name].to_shape()[2:]) >= FEWEST_CELLS]
    return (large or names)[-1]


def _build(network: Network, *, output: str, maps: ov.Output) -> ov.Model:
    """From an image and a class, as one at its place among zeros, to the map's cells."""
    softmax = network.outputs[output].get_node()
    if softmax.get_type_name() != "Softmax":
        raise UnsupportedGraphError("it does not end in a softmax")
    logits = softmax.input_value(0)
    chosen = ops.parameter(list(logits.get_shape()), ov.Type.f32, name="class")
    # The slope of the class's log-odds. That of the softmax vanishes just where the model is sure.
    excluded = ops.add(logits, ops.multiply(chosen, ops.constant(np.float32(_EXCLUDED))))
    seed = ops.subtract(chosen, ops.softmax(excluded, 1))
    slope = gradient(logits, seed, by=maps, parameter=network.parameter)
    weights = ops.reduce_mean(slope, [2, 3], True)
    cells = ops.relu(ops.reduce_sum(ops.multiply(weights, maps), [1], False))
    return ov.Model([cells.output(0)], [network.parameter, chosen], "gradcam")
