"""Pixels in, pixels out: what happens to pictures on their way through the world.

    for perturbation in PERTURBATIONS:
        changed = perturbation.apply(pixels, seed=7)

Each is applied to the image as it is stored, before it is resized for the network.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Perturbation:
    """One change to an image.

    Attributes:
        name: For tables and figures.
        change: Takes pixels (height, width, 3), uint8, and a seed; returns such pixels, perhaps
            of another size.
    """

    name: str
    change: Callable[[np.ndarray, int], np.ndarray]

    def apply(self, pixels: np.ndarray, *, seed: int) -> np.ndarray:
        """The changed image; the seed is used by noise only."""
        return self.change(pixels, seed)


def recompress(pixels: np.ndarray, seed: int = 0, *, file_format: str, quality: int) -> np.ndarray:
    """Through an encoder (a Pillow format name) and back; the same size."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, quality=quality)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def resize(pixels: np.ndarray, seed: int = 0, *, factor: float) -> np.ndarray:
    """Both sides times a factor, at least one pixel; bicubic, as sites and messengers do."""
    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def blur(pixels: np.ndarray, seed: int = 0, *, sigma: float) -> np.ndarray:
    """Gaussian blur; sigma in pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def _noise(pixels: np.ndarray, seed: int, *, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(scale=deviation, size=pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def _centre_crop(pixels: np.ndarray, seed: int, *, share: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(pixels[top : top + rows, left : left + columns])


def _brighten(pixels: np.ndarray, seed: int, *, factor: float) -> np.ndarray:
    return np.clip(np.rint(pixels * np.float32(factor)), 0, 255).astype(np.uint8)


def _screenshot(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Shown on a screen at another size, captured, and shared as a JPEG by a messenger."""
    shown = resize(pixels, seed, factor=1.25)
    return recompress(shown, seed, file_format="JPEG", quality=80)


PERTURBATIONS = (
    *(
        Perturbation(f"JPEG quality {q}", partial(recompress, file_format="JPEG", quality=q))
        for q in (95, 90, 75, 50, 30)
    ),
    *(
        Perturbation(f"WebP quality {q}", partial(recompress, file_format="WEBP", quality=q))
        for q in (80, 50)
    ),
    *(Perturbation(f"resized × {f:g}", partial(resize, factor=f)) for f in (0.5, 0.75, 2.0)),
    *(Perturbation(f"blur, σ {s:g} px", partial(blur, sigma=s)) for s in (0.5, 1.0)),
    *(Perturbation(f"noise, σ {d:g} of 255", partial(_noise, deviation=d)) for d in (4.0, 8.0)),
    *(Perturbation(f"centre {100 * s:g} %", partial(_centre_crop, share=s)) for s in (0.9, 0.75)),
    Perturbation("screenshot, JPEG 80", _screenshot),
    *(Perturbation(f"brightness × {f:g}", partial(_brighten, factor=f)) for f in (0.75, 1.25)),
)
