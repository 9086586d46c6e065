"""Convert a Keras model's graph and weights for PyTorch; this module imports torch.

    write_pth(model, Path("model.pth"), metadata={"class_names": […]})

torch_network.py reads the file again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from real_vs_ai.errors import InputError

if TYPE_CHECKING:
    import keras

_IDENTITIES = ("Dropout", "GaussianNoise", "SpatialDropout2D")
_ACTIVATIONS = ("linear", "relu", "softmax")


def write_pth(model: keras.Model, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write layers, state dict and metadata as one `.pth` file.

    Raises:
        ImportError: torch is not installed.
        ValueError: The model has a layer that has no counterpart.
    """
    import torch

    layers, weights = describe_graph(model)
    state = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    torch.save({"layers": layers, "state_dict": state, "metadata": dict(metadata)}, path)


def describe_graph(model: keras.Model) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The layers as plain values, and the weights by PyTorch's names and in its order of axes."""
    layers, weights = [], {}
    for layer in model.layers:
        # Module names in PyTorch must not hold dots.
        name = layer.name.replace(".", "_")
        kind, options, own = _translate(layer)
        inputs = [] if kind == "input" else _inputs(layer)
        layers.append({"name": name, "kind": kind, "inputs": inputs, **options})
        weights |= {f"blocks.{name}.{key}": value for key, value in own.items()}
    return layers, weights


def _inputs(layer: keras.Layer) -> list[str]:
    tensors = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation.name.replace(".", "_") for tensor in tensors]


def _translate(layer: keras.Layer) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """The kind of a layer, what it needs, and its weights."""
    kind = type(layer).__name__
    if kind in _IDENTITIES:
        return "identity", {}, {}
    plain = {
        "InputLayer": "input",
        "Add": "add",
        "GlobalAveragePooling2D": "global_average_pooling",
        "Flatten": "flatten",
    }
    if kind in plain:
        return plain[kind], {}, {}
    translators = {
        "Conv2D": _convolution,
        "BatchNormalization": _batch_normalization,
        "Dense": _dense,
        "Rescaling": _rescaling,
        "ZeroPadding2D": _zero_padding,
        "MaxPooling2D": _pooling,
        "AveragePooling2D": _pooling,
        "Activation": _activation,
        "ReLU": _relu,
    }
    if kind not in translators:
        raise InputError(f"Expected layers known to torch_network.py, found {kind} ({layer.name}).")
    return translators[kind](layer)


def _convolution(layer: keras.Layer) -> tuple:
    kernel = layer.kernel.numpy()
    if layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1):
        raise InputError(f"Expected a plain convolution, found groups or dilation in {layer.name}.")
    options = {
        "channels_in": kernel.shape[2],
        "channels_out": kernel.shape[3],
        "size": list(kernel.shape[:2]),
        "strides": list(layer.strides),
        "padding": layer.padding,
        "bias": layer.use_bias,
        "activation": _activation_name(layer),
    }
    weights = {"inner.weight": kernel.transpose(3, 2, 0, 1)}
    if layer.use_bias:
        weights["inner.bias"] = layer.bias.numpy()
    return "convolution", options, weights


def _batch_normalization(layer: keras.Layer) -> tuple:
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    weights = {
        "weight": layer.gamma.numpy() if layer.scale else np.ones_like(mean),
        "bias": layer.beta.numpy() if layer.center else np.zeros_like(mean),
        "running_mean": mean,
        "running_var": variance,
        "num_batches_tracked": np.array(0, dtype=np.int64),
    }
    return "batch_normalization", {"channels": len(mean), "epsilon": layer.epsilon}, weights


def _dense(layer: keras.Layer) -> tuple:
    kernel = layer.kernel.numpy()
    options = {
        "channels_in": kernel.shape[0],
        "channels_out": kernel.shape[1],
        "bias": layer.use_bias,
        "activation": _activation_name(layer),
    }
    weights = {"0.weight": kernel.T}
    if layer.use_bias:
        weights["0.bias"] = layer.bias.numpy()
    return "dense", options, weights


def _rescaling(layer: keras.Layer) -> tuple:
    offset = np.broadcast_to(np.asarray(layer.offset, dtype=np.float64), (3,)).tolist()
    return "rescaling", {"scale": float(layer.scale), "offset": offset}, {}


def _zero_padding(layer: keras.Layer) -> tuple:
    return "zero_padding", {"padding": [list(side) for side in layer.padding]}, {}


def _pooling(layer: keras.Layer) -> tuple:
    kind = "max_pooling" if type(layer).__name__ == "MaxPooling2D" else "average_pooling"
    if kind == "average_pooling" and layer.padding != "valid":
        raise InputError(f"Expected average pooling without padding, found it in {layer.name}.")
    options = {
        "size": list(layer.pool_size),
        "strides": list(layer.strides),
        "padding": layer.padding,
    }
    return kind, options, {}


def _activation(layer: keras.Layer) -> tuple:
    return "activation", {"activation": _activation_name(layer)}, {}


def _relu(layer: keras.Layer) -> tuple:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise InputError(f"Expected a plain ReLU, found options in {layer.name}.")
    return "activation", {"activation": "relu"}, {}


def _activation_name(layer: keras.Layer) -> str:
    name = layer.activation.__name__
    if name not in _ACTIVATIONS:
        raise InputError(f"Expected {', '.join(_ACTIVATIONS)}, found {name} in {layer.name}.")
    return name
