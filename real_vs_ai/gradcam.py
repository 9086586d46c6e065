"""Compute Grad-CAM with Keras: where in an image the evidence for a class lies.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization". TensorFlow is imported when a heatmap is made, and not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from real_vs_ai.errors import InputError
from real_vs_ai.images import resize_image

if TYPE_CHECKING:
    import keras

# Below 4 × 4 cells a map says nothing of where; small inputs shrink to 1 × 1 in ResNet101.
FEWEST_CELLS = 4
# The tape keeps every activation, some 150 MB for an image of 224 pixels in ResNet101.
_BATCH = 4
# Matplotlib's colour scale "inferno" at equal steps, red, green, blue: the app has no Matplotlib.
_INFERNO = bytes.fromhex(
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 "
    "d04545 e35933 f1711f f98c0a fcaa0f f9c932 f2e865 fcffa4"
)


class GradCam:
    """Where images speak for a class.

    Args:
        model: Flat Keras model ending in a softmax layer: RGB 0 to 255 in.
        layer: Name of the layer whose feature maps are weighed; None takes the deepest one with
            at least 4 × 4 cells.

    Raises:
        InputError: The model has no such layer, no feature maps or no dense end, or Keras runs on
            another backend than TensorFlow.
    """

    def __init__(self, model: keras.Model, *, layer: str | None = None) -> None:
        import keras

        if keras.backend.backend() != "tensorflow":
            raise InputError(
                "Expected the TensorFlow backend for Grad-CAM, found "
                f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow."
            )
        self._classifier = model.layers[-1]
        if not hasattr(self._classifier, "kernel"):
            raise InputError(
                "Expected a model that ends in a Dense layer, found "
                f"{type(self._classifier).__name__}."
            )
        self._layer = _feature_layer(model, layer)
        self._image_size = model.input_shape[1]
        self._maps_and_features = keras.Model(
            model.inputs, [self._layer.output, self._classifier.input]
        )

    @property
    def layer_name(self) -> str:
        """The layer whose feature maps are weighed."""
        return self._layer.name

    def __call__(
        self, images: Sequence[np.ndarray] | np.ndarray, *, class_indices: Sequence[int]
    ) -> list[np.ndarray]:
        """One heatmap of each image's own size, shape (height, width), float32, 0 to 1."""
        n_classes = self._classifier.units
        if any(not 0 <= index < n_classes for index in class_indices):
            raise InputError(f"Expected class indices below {n_classes}, found {class_indices}.")
        heatmaps = []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            inputs = np.stack([self._to_input(pixels) for pixels in batch])
            chosen = np.asarray(class_indices[start : start + _BATCH])
            for cells, pixels in zip(self._coarse_maps(inputs, chosen), batch, strict=True):
                height, width = pixels.shape[:2]
                heatmaps.append(enlarge(cells, height=height, width=width))
        return heatmaps

    def _to_input(self, pixels: np.ndarray) -> np.ndarray:
        if self._image_size and pixels.shape[:2] != (self._image_size, self._image_size):
            pixels = resize_image(np.asarray(pixels, dtype=np.uint8), self._image_size)
        return np.asarray(pixels, dtype=np.float32)

    def _coarse_maps(self, inputs: np.ndarray, class_indices: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            maps, features = self._maps_and_features(tf.constant(inputs), training=False)
            # From the logits: the gradient of a softmax vanishes just where the model is sure.
            logits = tf.matmul(features, self._classifier.kernel) + self._classifier.bias
            chosen = tf.cast(tf.one_hot(class_indices, self._classifier.units), tf.bool)
            others = tf.where(chosen, tf.fill(tf.shape(logits), -np.inf), logits)
            own = tf.reduce_sum(tf.where(chosen, logits, tf.zeros_like(logits)), axis=1)
            log_odds = own - tf.reduce_logsumexp(others, axis=1)
        gradients = tape.gradient(log_odds, maps)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()


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


def _feature_layer(model: keras.Model, name: str | None) -> keras.Layer:
    maps = [layer for layer in model.layers if len(_output_shape(layer)) == 4]
    if name is not None:
        named = [layer for layer in maps if layer.name == name]
        if not named:
            raise InputError(f"Expected a layer with feature maps called {name!r}, found none.")
        return named[0]
    large = [layer for layer in maps if min(_cells(layer)) >= FEWEST_CELLS]
    # The input itself is not a feature map.
    candidates = [layer for layer in large or maps if layer not in model.layers[:1]]
    if not candidates:
        raise InputError("Expected a model with convolutional feature maps, found none.")
    return candidates[-1]


def _output_shape(layer: keras.Layer) -> tuple:
    shape = getattr(getattr(layer, "output", None), "shape", ())
    return tuple(shape or ())


def _cells(layer: keras.Layer) -> tuple[int, int]:
    # Unknown sizes (inputs of any size) are taken as large.
    _, height, width, _ = _output_shape(layer)
    return height or FEWEST_CELLS, width or FEWEST_CELLS


def enlarge(cells: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """A heatmap of an image's size from the cells of the feature maps, scaled to at most 1."""
    resized = Image.fromarray(cells.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    heatmap = np.maximum(np.asarray(resized, dtype=np.float32), 0)
    highest = float(heatmap.max())
    return heatmap / highest if highest > 0 else heatmap
