"""Degrade training images as the web does, as an augmentation.

draws = draw_degradations(len(pixels), seed=(42, step))
degraded = degrade_images(pixels, draws, share=0.5)

Both classes are degraded alike, so that a network cannot take compression for a class, and learns
what survives it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from real_vs_ai.images import resize_image
from real_vs_ai.perturbations import blur, recompress, resize

# Ranges that the strength is drawn from, evenly.
_JPEG_QUALITY = (40, 96)
_RESIZE_FACTOR = (0.4, 1.0)
_BLUR_SIGMA = (0.2, 1.2)
# Below this a batch is done before threads have begun.
_FEWEST_FOR_THREADS = 16


def draw_degradations(count: int, *, seed: Sequence[int]) -> np.ndarray:
    """What `degrade_images` does to each of `count` images, shape (count, 5), from 0 to 1."""
    return np.random.default_rng(tuple(seed)).random((count, 5))


def degrade_images(pixels: np.ndarray, draws: np.ndarray, *, share: float) -> np.ndarray:
    """Recompress, shrink or blur some images; the others stay as they are.

    A third of the chosen images are shrunk and enlarged again, a third are blurred, and then two
    of three of these, and all the rest, are recompressed as JPEG.

    Args:
        pixels: Shape (n, side, side, 3), uint8; not changed.
        draws: Shape (n, 5), from `draw_degradations`.
        share: Probability that an image is chosen.

    Returns:
        Same shape and type.
    """
    chosen = np.flatnonzero(draws[:, 0] < share)
    degraded = pixels.copy()
    if len(chosen) < _FEWEST_FOR_THREADS:
        results = map(_degrade, pixels[chosen], draws[chosen])
    else:
        results = _threads().map(_degrade, pixels[chosen], draws[chosen])
    for index, result in zip(chosen, results, strict=True):
        degraded[index] = result
    return degraded


def _degrade(pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    side = pixels.shape[0]
    _, kind, strength, quality, recompressed = draws
    changed = pixels
    if kind < 1 / 3:
        small = resize(pixels, factor=_between(_RESIZE_FACTOR, strength))
        # A picture that was shrunk meets the network as any other: resized to its side.
        changed = resize_image(small, side)
    elif kind < 2 / 3:
        changed = blur(pixels, sigma=_between(_BLUR_SIGMA, strength))
    if kind >= 2 / 3 or recompressed < 2 / 3:
        jpeg_quality = int(_between(_JPEG_QUALITY, quality))
        changed = recompress(changed, file_format="JPEG", quality=jpeg_quality)
    return changed


def _between(limits: tuple[float, float], draw: float) -> float:
    low, high = limits
    return low + (high - low) * float(draw)


@cache
def _threads() -> ThreadPoolExecutor:
    # Pillow's codecs run without Python's lock.
    return ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
