"""What several benchmarks share: made photographs, and the augmentation that others use."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def make_photograph(seed: int, *, width: int, height: int, quality: int = 85) -> bytes:
    """A JPEG with the detail and the size of a camera's, about 0.25 byte a pixel."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = random.normal(0, 5, (height, width, 1))
    pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def image_data_generator() -> Any:
    """Keras' ImageDataGenerator with the changes that earlier systems make."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    return ImageDataGenerator(
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
    )
