"""Explain a model's answer to an image: Grad-CAM as an array and as a picture.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization". The first explanation compiles the model with its gradient, so that neither Keras nor
TensorFlow is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from PIL import Image

from real_vs_ai.errors import InputError, one_line
from real_vs_ai.images import resize_image
from real_vs_ai.serving.gradients import gradient
from real_vs_ai.serving.keras_graph import UnsupportedGraphError, read_graph
from real_vs_ai.serving.openvino_layers import Network, build_network
from real_vs_ai.verdict import CropScore

# Below 4 × 4 cells a map says nothing of where; small inputs shrink to 1 × 1 in ResNet101.
_FEWEST_CELLS = 4
# Added to the logit of the class to explain, so that it has no share in the softmax of the others.
_EXCLUDED = -1e30
# Matplotlib's colour scale "inferno" at equal steps, red, green, blue: the app has no Matplotlib.
_INFERNO = bytes.fromhex(
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 "
    "d04545 e35933 f1711f f98c0a fcaa0f f9c932 f2e865 fcffa4"
)


# More frames would cover the picture.
_MOST_CROPS = 3


def deciding_crops(crops: Sequence[CropScore], *, class_index: int) -> list[CropScore]:
    """The crops that speak most for a class, at most three, and none that hides another.

    Those that speak against the class are left out.
    """
    chosen: list[CropScore] = []
    for crop in sorted(crops, key=lambda crop: -crop.probabilities[class_index]):
        if crop.probabilities[class_index] <= 0.5 or len(chosen) == _MOST_CROPS:
            break
        if not any(_overlap(crop.window, other.window) > 0.25 for other in chosen):
            chosen.append(crop)
    return chosen


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """What share of the first window, in area, the second one covers."""
    (left, top, right, bottom), (left2, top2, right2, bottom2) = one, other
    width = max(0.0, min(right, right2) - max(left, left2))
    height = max(0.0, min(bottom, bottom2) - max(top, top2))
    return width * height / ((right - left) * (bottom - top))


class GradCam:
    """Where images speak for a class of one model, which ends in a softmax.

    Threads may share it; they wait for one another.
    """

    def __init__(self, model_path: Path) -> None:
        """Compile the model's forward and backward pass, in float32.

        Raises:
            UnsupportedGraphError: The model has no feature maps, or an operator without a gradient.
        """
        try:
            graph = read_graph(model_path)
            network = build_network(graph, batch_size=1)
            self.layer_name = _feature_layer(network)
            model = _build(network, output=graph.output, maps=network.outputs[self.layer_name])
            settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
            self._compiled = ov.Core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            why = one_line(error)
            raise UnsupportedGraphError(f"There are no heat maps of this model: {why}") from error
        self._lock = threading.Lock()
        self._image_size = int(model.input(0).get_shape()[1])
        self._n_classes = int(model.input(1).get_shape()[1])

    def __call__(
        self, images: Sequence[np.ndarray], *, class_indices: Sequence[int]
    ) -> list[np.ndarray]:
        """Where each image speaks for a class, 0 (no evidence) to 1 (the most in this image).

        Args:
            images: Upright RGB pixels, shape (height, width, 3), uint8, each.
            class_indices: The class of each, whatever the verdict was.

        Returns:
            One heatmap of each image's own size, shape (height, width), float32.

        Raises:
            InputError: The model has no such class.
        """
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
            with self._lock:
                cells = self._compiled([inputs[None].astype(np.float32), chosen])[0][0]
            heatmaps.append(_enlarged(cells, height=height, width=width))
        return heatmaps


def _feature_layer(network: Network) -> str:
    """The deepest layer with feature maps of enough cells, or the deepest one with any."""
    maps = {
        name: output.get_partial_shape()
        for name, output in network.outputs.items()
        if output.get_partial_shape().rank.get_length() == 4
    }
    # The input itself is not a feature map.
    names = list(maps)[1:]
    if not names or any(shape.is_dynamic for shape in maps.values()):
        raise UnsupportedGraphError("it has no feature maps of known size")
    large = [name for name in names if min(maps[name].to_shape()[2:]) >= _FEWEST_CELLS]
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


def _enlarged(cells: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """A heatmap of an image's size from the cells of the feature maps, scaled to at most 1."""
    resized = Image.fromarray(cells.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    heatmap = np.maximum(np.asarray(resized, dtype=np.float32), 0)
    highest = float(heatmap.max())
    return heatmap / highest if highest > 0 else heatmap


def overlay_heatmap(pixels: np.ndarray, heatmap: np.ndarray, *, strength: float) -> np.ndarray:
    """Lay a heatmap over an image in a colour scale that colour-blind people can read.

    Args:
        pixels: Shape (height, width, 3), uint8, as is the result.
        heatmap: Shape (height, width), 0 to 1.
        strength: 0 leaves the image as it is, 1 covers the strongest places wholly.
    """
    scale = np.frombuffer(_INFERNO, np.uint8).reshape(-1, 3)
    places = np.linspace(0, 1, len(scale))
    colours = np.stack([np.interp(heatmap, places, channel) for channel in scale.T], axis=-1)
    # Weak places stay clear, so that the picture can still be judged there.
    cover = strength * np.clip(heatmap, 0, 1)[..., None]
    return np.rint(pixels * (1 - cover) + colours * cover).astype(np.uint8)
