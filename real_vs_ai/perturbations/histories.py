"""Draw at random what happens to pictures between their maker and the reader."""

from __future__ import annotations

import numpy as np
from PIL import Image

from real_vs_ai.core.images import resize_image
from real_vs_ai.perturbations.web_changes import blur, recompress, resize

# Ranges are drawn from evenly. Recipes of released models need these draws in this order.
_DEGRADED_QUALITY = (40, 96)
_DEGRADED_FACTOR = (0.4, 0.9)
_DEGRADED_CROP = (0.65, 0.95)
_DEGRADED_BLUR = (0.2, 1.2)
_FIRST_QUALITY = (75, 99)
_FILTERS = ("BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS", "LANCZOS")
# Many programs resample without a filter, and leave their traces.
_INTERPOLATIONS = ("INTER_AREA", "INTER_LINEAR", "INTER_CUBIC")
# How often a picture is compressed 0, 1 and 2 times.
_COMPRESSIONS = (0.25, 0.5, 0.25)
_SHARE_COMPRESSED_BEFORE = 0.2
_QUALITY = (30, 99)
_SHARE_OF_WEBP = 0.25
# How much larger a screen shows a picture.
_SHOWN = (1.0, 1.5)
# JPEG works on squares of 8 pixels: cropping shifts them against each other.
_BLOCK = 8


def degrade(pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Shrink, crop, blur or recompress a small square image; its size stays.

    Of eight images, four are shrunk and enlarged again, two are cropped and enlarged, and one is
    blurred. A third of these, and all the rest, are recompressed as JPEG.

    Args:
        pixels: Shape (side, side, 3), uint8.
        draws: Seven values from 0 to 1, of which the first does not count.
    """
    side = pixels.shape[0]
    _, kind, strength, quality, recompressed, top, left = draws
    changed = pixels
    # The network sees a shrunk or cropped picture like any other: resized to its side.
    if kind < 4 / 8:
        changed = resize_image(resize(pixels, factor=_between(_DEGRADED_FACTOR, strength)), side)
    elif kind < 6 / 8:
        size = round(side * _between(_DEGRADED_CROP, strength))
        row, column = (int(place * (side - size + 1)) for place in (top, left))
        changed = resize_image(pixels[row : row + size, column : column + size], side)
    elif kind < 7 / 8:
        changed = blur(pixels, sigma=_between(_DEGRADED_BLUR, strength))
    if kind >= 7 / 8 or recompressed < 1 / 3:
        jpeg_quality = int(_between(_DEGRADED_QUALITY, quality))
        changed = recompress(changed, file_format="JPEG", quality=jpeg_quality)
    return changed


def _between(limits: tuple[float, float], draw: float) -> float:
    low, high = limits
    return low + (high - low) * float(draw)


def simulate_web_history(
    pixels: np.ndarray, generator: np.random.Generator, *, factor: float, size: int, encoded: float
) -> np.ndarray:
    """Resample and recompress, as sites and messengers do; sides may shrink by a few pixels.

    Args:
        factor: Resample both sides by this, at most 1.
        size: Sides stay above 0.7 times this, in pixels.
        encoded: How often the picture becomes a JPEG or WebP of good quality first; 0 for one that
            came as a JPEG, for which nothing is drawn.
    """
    if encoded and generator.random() < encoded:
        pixels = compress(pixels, generator, quality=_FIRST_QUALITY)
    times = int(generator.choice(len(_COMPRESSIONS), p=_COMPRESSIONS))
    before = times == 2 or (times == 1 and generator.random() < _SHARE_COMPRESSED_BEFORE)
    if before:
        pixels = compress(_shift_blocks(pixels, generator, size=size), generator)
    if factor < 1:
        way = int(generator.integers(len(_FILTERS) + len(_INTERPOLATIONS)))
        if way < len(_FILTERS):
            filtered = Image.Resampling[_FILTERS[way]]
            pixels = resize(pixels, factor=factor, resampling=filtered)
        else:
            name = _INTERPOLATIONS[way - len(_FILTERS)]
            pixels = _resize_without_filter(pixels, factor=factor, interpolation=name)
    for _ in range(times - before):
        pixels = compress(_shift_blocks(pixels, generator, size=size), generator)
    return pixels


def capture(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A screenshot: shown larger, captured, and half of the time sent on as a JPEG or WebP."""
    pixels = resize(pixels, factor=float(generator.uniform(*_SHOWN)))
    return compress(pixels, generator) if generator.random() < 0.5 else pixels


def compress(
    pixels: np.ndarray, generator: np.random.Generator, *, quality: tuple[int, int] = _QUALITY
) -> np.ndarray:
    """Recompress as JPEG or WebP, at a quality from this range."""
    drawn = int(generator.integers(*quality))
    if generator.random() < _SHARE_OF_WEBP:
        return recompress(pixels, file_format="WEBP", quality=drawn, method=2)
    # Cameras and editors keep all colour, everything else halves it.
    subsampling = int(generator.choice([0, 2, 2]))
    return recompress(pixels, file_format="JPEG", quality=drawn, subsampling=subsampling)


def _shift_blocks(pixels: np.ndarray, generator: np.random.Generator, *, size: int) -> np.ndarray:
    """Cut up to 7 pixels off the top and left, where enough is left."""
    cuts = generator.integers(0, _BLOCK, size=2)
    keeps = [
        int(cut) if length - cut >= 0.7 * size else 0
        for cut, length in zip(cuts, pixels.shape[:2], strict=True)
    ]
    return np.ascontiguousarray(pixels[keeps[0] :, keeps[1] :])


def _resize_without_filter(pixels: np.ndarray, *, factor: float, interpolation: str) -> np.ndarray:
    """Both sides times a factor, by one of OpenCV's interpolations, which do not antialias."""
    import cv2

    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(pixels, size, interpolation=getattr(cv2, interpolation))
