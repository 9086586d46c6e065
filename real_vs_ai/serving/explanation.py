"""Explain a model's answer to an image: Grad-CAM as an array and as a picture.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization". OpenVINO computes it, so that neither Keras nor TensorFlow is needed. OpenVINO runs
networks forward only, so each channel of the feature maps is moved a little in turn, and the change
is followed to the result by the derivative of every operator between.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.utils.node_factory import NodeFactory
from PIL import Image

from real_vs_ai.errors import InputError, one_line
from real_vs_ai.images import resize_image
from real_vs_ai.serving.keras_graph import UnsupportedGraphError
from real_vs_ai.serving.openvino_layers import Network, build_network
from real_vs_ai.verdict import CropScore

# Below 4 × 4 cells a map says nothing of where; small inputs shrink to 1 × 1 in ResNet101.
_FEWEST_CELLS = 4
# As many changed values are followed at a time.
_MOST_VALUES = 2**22
# They do to a change what they do to a value: of all operands, or of the first one.
_SUMS = frozenset({"Add", "Subtract", "Concat"})
_LINEAR = frozenset(
    [
        "Convolution",
        "GroupConvolution",
        "ReduceMean",
        "ReduceSum",
        "MatMul",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Pad",
        "AvgPool",
    ]
)
_FACTORY = NodeFactory("opset13")
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
        """Compile the model up to its feature maps, and what follows them, in float32.

        Raises:
            UnsupportedGraphError: The model has no feature maps, or an operator without a rule.
        """
        try:
            network = build_network(model_path, batch_size=1)
            self.layer_name = _feature_layer(network)
            maps = network.outputs[self.layer_name]
            self._to_maps = _compiled([maps], [network.parameter])
            self._slopes, self._directions = _build_slopes(network, maps)
        except RuntimeError as error:
            why = one_line(error)
            raise UnsupportedGraphError(f"There are no heat maps of this model: {why}") from error
        self._lock = threading.Lock()
        self._image_size = int(self._to_maps.input(0).get_shape()[1])
        self._n_classes = int(self._slopes.input(2).get_shape()[1])

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
                cells = self._cells(inputs[None].astype(np.float32), chosen)
            heatmaps.append(_enlarged(cells, height=height, width=width))
        return heatmaps

    def _cells(self, inputs: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """The feature maps' sum, each weighted by its slope, where it is positive."""
        maps = self._to_maps([inputs])[0]
        every = np.eye(maps.shape[1], dtype=np.float32)[:, :, None, None]
        weights = []
        for start in range(0, len(every), self._directions):
            some = np.zeros((self._directions, *every.shape[1:]), np.float32)
            some[: len(every) - start] = every[start : start + self._directions]
            weights.append(self._slopes([inputs, maps, chosen, some])[0])
        return np.maximum(np.tensordot(np.concatenate(weights)[: len(every)], maps[0], axes=1), 0)


def _compiled(results: Sequence[ov.Output], parameters: Sequence[ov.Node]) -> ov.CompiledModel:
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return ov.Core().compile_model(ov.Model(list(results), list(parameters)), "CPU", settings)


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


def _build_slopes(network: Network, maps: ov.Output) -> tuple[ov.CompiledModel, int]:
    """The slope of a class's log-odds along some channels of the feature maps, and how many.

    That of the softmax vanishes just where the model is sure.
    """
    softmax = network.result.get_node()
    if softmax.get_type_name() != "Softmax":
        raise UnsupportedGraphError("it does not end in a softmax")
    logits, shape = softmax.input_value(0), list(maps.get_shape())
    count = int(np.clip(_MOST_VALUES // np.prod(shape), 1, shape[1]))
    start = ops.parameter(shape, ov.Type.f32, name="maps")
    for used in maps.get_target_inputs():
        used.replace_source_output(start.output(0))
    chosen = ops.parameter(list(logits.get_shape()), ov.Type.f32, name="class")
    directions = ops.parameter([count, shape[1], 1, 1], ov.Type.f32, name="directions")
    moved = ops.broadcast(directions, np.array([count, *shape[1:]])).output(0)
    # The change of each node's output in these directions, by the node's name.
    tangents = {start.get_name(): moved}
    for node in ov.Model([logits], [network.parameter, start], "way").get_ordered_ops():
        found = [tangents.get(value.get_node().get_name()) for value in node.input_values()]
        if node.get_type_name() != "Result" and any(found):
            tangents[node.get_name()] = _tangent(node, found)
    if logits.get_node().get_name() not in tangents:
        raise UnsupportedGraphError("its output does not depend on its feature maps")
    excluded = ops.add(logits, ops.multiply(chosen, ops.constant(np.float32(_EXCLUDED))))
    seed = ops.subtract(chosen, ops.softmax(excluded, 1))
    slopes = ops.multiply(tangents[logits.get_node().get_name()], seed)
    slopes = ops.reduce_sum(slopes, [1], False).output(0)
    return _compiled([slopes], [network.parameter, start, chosen, directions]), count


def _tangent(node: ov.Node, found: Sequence[ov.Output | None]) -> ov.Output:
    """How a node's output changes as its operands do, by its derivative (forward differentiation).

    Raises:
        UnsupportedGraphError: There is no rule for such a node.
    """
    kind, values, output = node.get_type_name(), node.input_values(), node.output(0)
    directions = next(filter(None, found)).get_shape()[0]
    zero = ops.constant(np.float32(0)).output(0)

    def where(condition: Any, otherwise: Any = zero) -> Any:
        return ops.select(condition, found[0] or zero, otherwise)

    if kind in _SUMS:
        # What does not change has no share in the change.
        inputs = []
        for value, moved in zip(values, found, strict=True):
            shape = list(value.get_shape())
            if kind == "Concat":
                shape[0] = directions
            inputs.append(moved or ops.constant(np.zeros(shape, np.float32)).output(0))
        made = _FACTORY.create(kind, inputs, node.get_attributes())
    elif kind in _LINEAR and not any(found[1:]):
        made = _FACTORY.create(kind, [found[0], *values[1:]], node.get_attributes())
    elif kind == "Multiply":
        parts = [ops.multiply(f, v) for f, v in zip(found, reversed(values), strict=True) if f]
        made = functools.reduce(ops.add, parts)
    elif kind == "Divide":
        top = ops.subtract(found[0] or zero, ops.multiply(output, found[1] or zero))
        made = ops.divide(top, values[1])
    elif kind == "Maximum":
        made = where(ops.greater(values[0], values[1]), found[1] or zero)
    elif kind == "Relu":
        made = where(ops.greater(values[0], zero))
    elif kind == "Clamp":
        limits = node.get_attributes()
        above = ops.greater(values[0], ops.constant(np.float32(limits["min"])))
        below = ops.less(values[0], ops.constant(np.float32(limits["max"])))
        made = where(ops.logical_and(above, below))
    elif kind == "Sqrt":
        made = ops.divide(found[0], ops.multiply(ops.constant(np.float32(2)), output))
    else:
        raise UnsupportedGraphError(
            f"its layer {node.get_friendly_name()} has no derivative here ({kind})"
        )
    return made.output(0)


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
