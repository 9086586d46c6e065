"""Perturb images as the web does: recompress, resize, blur, crop.

>>> pixels = np.zeros((40, 60, 3), dtype=np.uint8)
>>> half = next(p for p in PERTURBATIONS if p.name == "resized × 0.5")
>>> half.apply(pixels, seed=7).shape
(20, 30, 3)

Training, the model card and the app share these definitions. Each is applied to the image as it is
stored, before it is resized for the network. To add one, add a line to `PERTURBATIONS`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from real_vs_ai.core.messages import Message

# Raise it when a perturbation of the same name changes pixels differently: tables that were
# measured with the old definition are then measured again.
PERTURBATIONS_VERSION = 2
# Longer images cannot be stored in these formats; people reduce them first.
_LONGEST_SIDES = {"JPEG": 65_500, "WEBP": 16_383}


@dataclass(frozen=True)
class Perturbation:
    """One change to an image.

    Attributes:
        apply: Takes pixels (height, width, 3), uint8, and a seed, which noise alone uses; returns
            such pixels, perhaps of another size.
        phrase: In a sentence of the app ("flips after …"); None: the app does not try it.
    """

    name: str
    apply: Callable[..., np.ndarray]
    phrase: str | None = None


def recompress(
    pixels: np.ndarray, seed: int = 0, *, file_format: str, quality: int, **options: Any
) -> np.ndarray:
    """Encode and decode; images too long for the format shrink.

    Args:
        pixels: Shape (height, width, 3), uint8.
        file_format: "JPEG" or "WEBP".
        quality: 1 to 100.
    """
    longest = max(pixels.shape[:2])
    if longest > _LONGEST_SIDES[file_format]:
        pixels = resize(pixels, factor=_LONGEST_SIDES[file_format] / longest)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, quality=quality, **options)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def resize(
    pixels: np.ndarray,
    seed: int = 0,
    *,
    factor: float,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> np.ndarray:
    """Both sides times a factor, at least one pixel; antialiased."""
    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


def share_online(pixels: np.ndarray, seed: int = 0, *, side: int, quality: int) -> np.ndarray:
    """Send through a site or messenger: at most `side` pixels on the longer side, as a JPEG."""
    factor = min(1.0, side / max(pixels.shape[:2]))
    shown = pixels
    if factor < 1:
        shown = resize(pixels, factor=factor, resampling=Image.Resampling.LANCZOS)
    return recompress(shown, file_format="JPEG", quality=quality)


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


def _jpeg(quality: int, *, phrase: str | None = None) -> Perturbation:
    change = partial(recompress, file_format="JPEG", quality=quality)
    return Perturbation(f"JPEG quality {quality}", change, phrase)


WEB = Perturbation("web: 768 px, JPEG 60", partial(share_online, side=768, quality=60))
HARD = Perturbation("hard: 512 px, JPEG 40", partial(share_online, side=512, quality=40))

PERTURBATIONS = (
    _jpeg(95),
    _jpeg(90, phrase=Message("change.jpeg", quality=90)),
    _jpeg(75, phrase=Message("change.jpeg", quality=75)),
    _jpeg(50, phrase=Message("change.jpeg", quality=50)),
    _jpeg(30),
    Perturbation("WebP quality 80", partial(recompress, file_format="WEBP", quality=80)),
    Perturbation("WebP quality 50", partial(recompress, file_format="WEBP", quality=50)),
    Perturbation("resized × 0.5", partial(resize, factor=0.5), Message("change.half")),
    Perturbation("resized × 0.75", partial(resize, factor=0.75), Message("change.three_quarters")),
    Perturbation("resized × 2", partial(resize, factor=2.0)),
    Perturbation("blur, σ 0.5 px", partial(blur, sigma=0.5)),
    Perturbation("blur, σ 1 px", partial(blur, sigma=1.0), Message("change.blur")),
    Perturbation("noise, σ 4 of 255", partial(_noise, deviation=4.0)),
    Perturbation("noise, σ 8 of 255", partial(_noise, deviation=8.0)),
    Perturbation(
        "centre 90 %", partial(_centre_crop, share=0.9), Message("change.crop", percent=90)
    ),
    Perturbation(
        "centre 75 %", partial(_centre_crop, share=0.75), Message("change.crop", percent=75)
    ),
    Perturbation("screenshot, JPEG 80", _screenshot),
    Perturbation("brightness × 0.75", partial(_brighten, factor=0.75)),
    Perturbation("brightness × 1.25", partial(_brighten, factor=1.25)),
    # A release is judged by these two as well as by untouched files.
    WEB,
    HARD,
)
