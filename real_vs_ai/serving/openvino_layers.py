"""Build an OpenVINO graph from Keras layers: one small function for each kind of layer.

There are the kinds that this project's networks have; a file with another one runs in Keras. Add a
kind by writing a function under `@_builds("KerasClassName")`. It receives the layer and OpenVINO's
outputs of its operands. Inside the network a tensor of four axes has its channels
second, which OpenVINO's kernels want; Keras' axes are translated by `_axis`.

Stock Keras can read and export the models too, but it keeps hundreds of transposes (a third more
time for each image) and fixes the number of images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from real_vs_ai.errors import one_line
from real_vs_ai.out_of_distribution.check import read_check
from real_vs_ai.serving.keras_graph import Layer, UnsupportedGraphError, read_layers

Builder = Callable[..., Any]
BUILDERS: dict[str, Builder] = {}
# Where the axes of Keras (image, row, column, channel) are inside the network, and back.
_TO_CHANNELS_SECOND = (0, 3, 1, 2)
_TO_CHANNELS_LAST = (0, 2, 3, 1)
# Numbers in a constant above which it shares the array's memory.
_SHARED_SIZE = 4096


@dataclass(frozen=True)
class Network:
    """An OpenVINO graph under construction.

    Attributes:
        parameter: The images: shape (n, size, size, 3), float32, 0 to 255.
        outputs: Of each layer, by its name; those of four axes have their channels second.
        result: The network's own output, which is one of them.
    """

    parameter: ov.Node
    outputs: dict[str, ov.Output]
    result: ov.Output


def build_model(model_path: Path, *, layer: str | None = None) -> ov.Model:
    """The network of a model file for any number of images, weights in float32.

    Its first output is the softmax. A layer's features, one row for each image, are the second.

    Args:
        model_path: A Keras model file (`.h5`).
        layer: Name of that layer; None for the one whose statistics the file holds, if any.

    Raises:
        UnsupportedGraphError: It cannot be read, holds something that only Keras can run, or
            OpenVINO refuses it.
    """
    try:
        network = build_network(model_path, batch_size=None)
        outputs = [network.result]
        check = None if layer else read_check(model_path)
        features = network.outputs.get(check.layer if check else layer or "")
        if features is not None and features.get_partial_shape().rank.get_length() == 2:
            outputs.append(features)
        return ov.Model(outputs, [network.parameter], "model")
    except UnsupportedGraphError:
        raise
    except (OSError, RuntimeError) as error:
        raise UnsupportedGraphError(f"conversion to OpenVINO failed: {one_line(error)}") from error


def build_network(model_path: Path, *, batch_size: int | None) -> Network:
    """Build every layer of a model file.

    Args:
        batch_size: Number of images, or None for any number.

    Raises:
        UnsupportedGraphError: The file cannot be read, or a layer or one of its options has no
            builder.
        RuntimeError: OpenVINO refuses a layer, as its weights do not fit.
    """
    layers, last = read_layers(model_path)
    outputs: dict[str, ov.Output] = {}
    parameter = None
    for layer in layers:
        if layer.kind == "InputLayer":
            parameter, outputs[layer.name] = _build_input(layer, batch_size)
            continue
        builder = BUILDERS.get(layer.kind)
        if builder is None:
            raise UnsupportedGraphError(f"its layer {layer.name} is of kind {layer.kind}")
        try:
            built = builder(layer, *(outputs[name] for name in layer.operands))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UnsupportedGraphError(
                f"its layer {layer.name} of kind {layer.kind} has unexpected options "
                f"({type(error).__name__}: {error})"
            ) from error
        built = built if isinstance(built, ov.Output) else built.output(0)
        built.get_node().set_friendly_name(layer.name)
        outputs[layer.name] = built
    return Network(parameter, outputs, outputs[last])


def _build_input(layer: Layer, batch_size: int | None) -> tuple[ov.Node, ov.Output]:
    shape = layer.config.get("batch_shape") or layer.config["batch_input_shape"]
    if len(shape) != 4:
        raise UnsupportedGraphError(f"its input has the shape {shape}")
    sizes = [-1 if size is None else int(size) for size in shape[1:]]
    parameter = ops.parameter([batch_size or -1, *sizes], ov.Type.f32, name=layer.name)
    return parameter, ops.transpose(parameter, list(_TO_CHANNELS_SECOND)).output(0)


def _constant(values: Any) -> ov.Output:
    # Arrays handed to OpenVINO's functions as they are would become lists of numbers first: 8 s for
    # ResNet101.
    array = np.asarray(values, dtype=np.float32, order="C")
    # A large one is not copied; OpenVINO keeps the array alive.
    return ops.constant(array, shared_memory=array.size > _SHARED_SIZE).output(0)


def _builds(*kinds: str) -> Callable[[Builder], Builder]:
    def register(builder: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(kinds, builder))
        return builder

    return register


@_builds("Dropout", "GaussianNoise")
def _identity(_: Layer, x: ov.Output) -> ov.Output:
    return x


@_builds("Conv2D")
def _conv2d(layer: Layer, x: ov.Output) -> Any:
    # Keras' kernels: (height, width, channels in, channels out).
    kernel = np.ascontiguousarray(layer.weights["kernel"].transpose(3, 2, 0, 1))
    groups = layer.config["groups"]
    if groups > 1:
        kernel = kernel.reshape(groups, -1, *kernel.shape[1:])
    return _convolved(layer, ops.convolution if groups == 1 else ops.group_convolution, x, kernel)


@_builds("DepthwiseConv2D")
def _depthwise_conv2d(layer: Layer, x: ov.Output) -> Any:
    # Each channel by itself; the kernel: (height, width, channels, outputs of each).
    kernel = np.ascontiguousarray(layer.weights["kernel"].transpose(2, 3, 0, 1)[:, :, None])
    return _convolved(layer, ops.group_convolution, x, kernel)


@_builds("Dense")
def _dense(layer: Layer, x: ov.Output) -> Any:
    if _rank(x) != 2:
        raise UnsupportedGraphError(f"its layer {layer.name} is dense on maps")
    found = ops.matmul(x, _constant(layer.weights["kernel"]), False, False)
    if "bias" in layer.weights:
        found = ops.add(found, _constant(layer.weights["bias"]))
    return _activated(layer.config, found)


@_builds("BatchNormalization")
def _batch_normalization(layer: Layer, x: ov.Output) -> Any:
    if layer.config["axis"] not in (_rank(x) - 1, -1):
        raise UnsupportedGraphError(f"its layer {layer.name} normalises another axis than the last")
    # OpenVINO puts both factors into the convolution before, if there is one.
    weights = layer.weights
    scale = 1 / np.sqrt(weights["moving_variance"] + np.float32(layer.config["epsilon"]))
    scale = scale * weights.get("gamma", np.float32(1))
    offset = weights.get("beta", np.float32(0)) - weights["moving_mean"] * scale
    return ops.add(ops.multiply(x, _by_channel(scale, x)), _by_channel(offset, x))


@_builds("UnitNormalization")
def _unit_normalization(layer: Layer, x: ov.Output) -> Any:
    axes = layer.config["axis"]
    axes = [_axis(axis, x) for axis in ([axes] if isinstance(axes, int) else axes)]
    squares = ops.reduce_sum(_elementwise(ops.multiply, x, x), axes, True)
    # Vectors of length 0 stay so.
    lengths = ops.sqrt(ops.maximum(squares, _constant(1e-24)))
    return _elementwise(ops.divide, x, lengths.output(0))


@_builds("Rescaling")
def _rescaling(layer: Layer, x: ov.Output) -> Any:
    scale = _by_channel(layer.config["scale"], x)
    return ops.add(ops.multiply(x, scale), _by_channel(layer.config["offset"], x))


@_builds("Activation")
def _activation(layer: Layer, x: ov.Output) -> Any:
    return _activated(layer.config, x)


@_builds("ReLU")
def _relu(layer: Layer, x: ov.Output) -> Any:
    config = layer.config
    if config["negative_slope"] or config["threshold"]:
        raise UnsupportedGraphError(f"its layer {layer.name} is a ReLU with a slope or threshold")
    largest = config["max_value"]
    return ops.relu(x) if largest is None else ops.clamp(x, 0.0, float(largest))


@_builds("ZeroPadding2D")
def _zero_padding2d(layer: Layer, x: ov.Output) -> Any:
    (top, bottom), (left, right) = layer.config["padding"]
    return ops.pad(x, [0, 0, top, left], [0, 0, bottom, right], "constant", _constant(0))


@_builds("UpSampling2D")
def _up_sampling2d(layer: Layer, x: ov.Output) -> Any:
    interpolation = layer.config["interpolation"]
    if interpolation != "bilinear":
        raise UnsupportedGraphError(f"its layer {layer.name} enlarges with {interpolation}")
    factors, axes = _constant(layer.config["size"]), np.array([2, 3])
    return ops.interpolate(
        x, factors, "linear_onnx", "scales", coordinate_transformation_mode="half_pixel", axes=axes
    )


@_builds("MaxPooling2D", "AveragePooling2D")
def _pooling2d(layer: Layer, x: ov.Output) -> Any:
    kernel, strides = layer.config["pool_size"], layer.config["strides"]
    padding = _auto_pad(layer.config)
    if layer.kind == "MaxPooling2D":
        return ops.max_pool(x, strides, [1, 1], [0, 0], [0, 0], kernel, "floor", padding).output(0)
    # Keras leaves the padding out of the average.
    return ops.avg_pool(x, strides, [0, 0], [0, 0], kernel, True, "floor", padding)


@_builds("GlobalAveragePooling2D")
def _global_pooling2d(layer: Layer, x: ov.Output) -> Any:
    return ops.reduce_mean(x, [2, 3], bool(layer.config["keepdims"]))


@_builds("Flatten")
def _flatten(_: Layer, x: ov.Output) -> Any:
    return ops.reshape(_channels_last(x), np.array([0, -1]), True)


@_builds("Reshape")
def _reshape(layer: Layer, x: ov.Output) -> Any:
    target = layer.config["target_shape"]
    if _rank(x) == 4 and len(target) == 3 and target[2] == x.get_partial_shape()[1]:
        # The channels stay: only rows and columns change.
        return ops.reshape(x, np.array([0, target[2], *target[:2]]), True)
    shaped = ops.reshape(_channels_last(x), np.array([0, *target]), True)
    return ops.transpose(shaped, list(_TO_CHANNELS_SECOND)) if _rank(shaped) == 4 else shaped


@_builds("Concatenate")
def _concatenate(layer: Layer, *parts: ov.Output) -> Any:
    _check_ranks(layer, parts)
    return ops.concat(list(parts), _axis(layer.config["axis"], parts[0]))


_COMBINERS: dict[str, Callable[..., Any]] = {
    "Add": ops.add,
    "Subtract": ops.subtract,
    "Multiply": ops.multiply,
}


@_builds(*_COMBINERS)
def _combine(layer: Layer, *terms: ov.Output) -> Any:
    _check_ranks(layer, terms)
    return functools.reduce(functools.partial(_elementwise, _COMBINERS[layer.kind]), terms)


def _elementwise(operator: Callable[..., Any], *terms: ov.Output) -> ov.Output:
    """The operator on each element; columns are laid down as rows meanwhile.

    OpenVINO's kernels run along the last axis: one of length 1 makes them ten times as slow.
    """
    if any(_rank(term) != 4 or term.get_partial_shape()[3] != 1 for term in terms):
        return operator(*terms).output(0)
    rows = (ops.reshape(term, np.array([0, 0, 1, -1]), True) for term in terms)
    return ops.reshape(operator(*rows), np.array([0, 0, -1, 1]), True).output(0)


_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda x: x,
    "relu": ops.relu,
    "softmax": lambda x: ops.softmax(x, 1),
}


def _activated(config: dict[str, Any], x: Any) -> Any:
    name = config["activation"]
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise UnsupportedGraphError(f"its layer {config['name']} has the activation {name}")
    return _ACTIVATIONS[name](x)


def _convolved(layer: Layer, operator: Callable[..., Any], x: Any, kernel: Any) -> Any:
    """A convolution with its bias and activation; the kernel as OpenVINO has it."""
    config = layer.config
    strides, dilation, padding = config["strides"], config["dilation_rate"], _auto_pad(config)
    found = operator(x, _constant(kernel), strides, [0, 0], [0, 0], dilation, padding)
    if "bias" in layer.weights:
        found = ops.add(found, _constant(layer.weights["bias"].reshape(1, -1, 1, 1)))
    return _activated(config, found)


def _auto_pad(config: dict[str, Any]) -> str:
    # TensorFlow puts the odd pixel at the end, as OpenVINO's "same_upper" does.
    return {"same": "same_upper", "valid": "valid"}[config["padding"]]


def _rank(x: Any) -> int:
    output = x if isinstance(x, ov.Output) else x.output(0)
    return output.get_partial_shape().rank.get_length()


def _axis(axis: int, x: ov.Output) -> int:
    """Where an axis of Keras is inside the network."""
    rank = _rank(x)
    axis = axis % rank
    return _TO_CHANNELS_SECOND.index(axis) if rank == 4 else axis


def _by_channel(values: Any, x: ov.Output) -> ov.Output:
    """One number, or one for each channel, in a shape that fits the tensor's."""
    found = np.asarray(values, dtype=np.float32)
    if found.size == 1:
        return _constant(found.reshape(()))
    return _constant(found.reshape(1, -1, 1, 1) if _rank(x) == 4 else found.reshape(-1))


def _channels_last(x: Any) -> Any:
    return ops.transpose(x, list(_TO_CHANNELS_LAST)) if _rank(x) == 4 else x


def _check_ranks(layer: Layer, parts: Sequence[ov.Output]) -> None:
    # Axes would be matched from the last one on.
    ranks = {_rank(part) for part in parts}
    if len(ranks) > 1:
        raise UnsupportedGraphError(f"its layer {layer.name} combines tensors of ranks {ranks}")
