"""Compute the outputs of a network that is being trained or exported, for any number of inputs.

OpenVINO computes a model's file: it starts in a second, where Keras traces a deep network for many,
and is faster on CPUs. Keras computes on GPUs, and what OpenVINO cannot read. Verdicts come from
`serving.judge` instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from real_vs_ai.errors import RealVsAIError
from real_vs_ai.keras_models import sees_gpu

if TYPE_CHECKING:
    import keras

# One batch of float32 pixels; a ResNet101's activations take some 60 times as much.
_BATCH_PIXELS = 2**20
_LARGEST_BATCH = 256


class Network(Protocol):
    """Computes batches; a Keras model is one."""

    def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
        """Outputs of RGB pixels, 0 to 255, shape (n, image_size, image_size, 3)."""


def open_network(model: keras.Model, model_path: Path, *, layer: str) -> Network:
    """Choose the fastest way to compute a model's probabilities, then a layer's outputs.

    Args:
        model_path: A file of the same network.
    """
    network, image_size = None, model.input_shape[1]
    if image_size is not None and not sees_gpu():
        network = _open_file(model_path, image_size=image_size, layer=layer)
    return network or _keras_network(model, layer)


class _CompiledFile:
    """A model file compiled by OpenVINO; see `Network`."""

    def __init__(self, model_path: Path, *, image_size: int, layer: str) -> None:
        from real_vs_ai.serving.openvino_engine import OpenVINOEngine

        self._engine = OpenVINOEngine(
            model_path, image_size=image_size, precision="f32", layer=layer
        )
        self._engine.open(for_batches=True)

    def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
        return self._engine.predict(pixels.astype(np.uint8), in_batches=True)


def _open_file(model_path: Path, *, image_size: int, layer: str) -> Network | None:
    """The file compiled by OpenVINO, or None where that cannot be."""
    try:
        return _CompiledFile(model_path, image_size=image_size, layer=layer)
    except (ImportError, RealVsAIError, RuntimeError, OSError):
        return None


def _keras_network(model: keras.Model, layer: str) -> keras.Model:
    import keras

    outputs = [model.outputs[0], model.get_layer(layer).output]
    return keras.Model(model.inputs, keras.layers.Concatenate()(outputs))


def predict_in_batches(network: Network, pixels: np.ndarray) -> np.ndarray:
    """A network's outputs in the order of its inputs.

    Args:
        pixels: Shape (n_inputs, image_size, image_size, 3), uint8; may be a memory map.

    Returns:
        Shape (n_inputs, n_outputs), float64.
    """
    batch_size = int(np.clip(_BATCH_PIXELS // pixels.shape[1] ** 2, 1, _LARGEST_BATCH))
    outputs = []
    for start in range(0, len(pixels), batch_size):
        batch = np.asarray(pixels[start : start + batch_size], dtype=np.float32)
        outputs.append(np.asarray(network.predict_on_batch(batch), dtype=np.float64))
    return np.concatenate(outputs)
