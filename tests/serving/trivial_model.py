"""Make a deliberately trivial model: the brighter an image, the more it is Fake."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.serving.detector import PreparedImage

IMAGE_SIZE = 32
METADATA = ModelMetadata(class_names=("Fake", "Real"), image_size=IMAGE_SIZE)


def build_brightness_model(class_names: tuple[str, ...], image_size: int = IMAGE_SIZE):
    """Softmax over logits that rise with brightness for the first class and fall for the last."""
    import keras

    layers = keras.layers
    inputs = keras.Input((image_size, image_size, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Conv2D(3, 3, padding="same", use_bias=False, name="last_conv")(x)
    x = layers.GaussianNoise(0.1)(x)
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(len(class_names), activation="softmax", name="outputs")(x)
    model = keras.Model(inputs, outputs)
    identity = np.zeros((3, 3, 3, 3), dtype=np.float32)
    identity[1, 1] = np.eye(3)
    model.get_layer("last_conv").set_weights([identity])
    slopes = np.linspace(4, -4, len(class_names), dtype=np.float32)
    model.get_layer("outputs").set_weights([np.tile(slopes / 2, (3, 1)), np.zeros_like(slopes)])
    return model


def save_model(path: Path, metadata: ModelMetadata) -> Path:
    from real_vs_ai.models import keras_models

    model = build_brightness_model(metadata.class_names, metadata.image_size)
    keras_models.save_model(model, path, metadata=metadata)
    return path


def judge_inputs(detector, pixels: np.ndarray) -> tuple[np.ndarray, list]:
    """Calibrated probabilities of a network's inputs, and why each is out-of-distribution.

    Args:
        pixels: Shape (n, image_size, image_size, 3), or of several views of each image,
            (n, views, image_size, image_size, 3).
    """
    views = pixels[:, None] if pixels.ndim == 4 else pixels
    verdicts = detector.judge([PreparedImage(detector, inputs) for inputs in views])
    uncalibrated = np.array([verdict.uncalibrated for verdict in verdicts])
    reasons = [verdict.out_of_distribution_reason for verdict in verdicts]
    return detector.metadata.calibrate(uncalibrated), reasons


def uniform_image(brightness: int, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    return np.full((size[1], size[0], 3), brightness, dtype=np.uint8)


def encode(pixels: np.ndarray, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()
