"""One affine map in, warped pixels out.

Rotation, shifts, shear, zoom and flip are composed into one affine map, so that pixels are
interpolated once. Interpolation is bicubic at native resolution, the nearest edge pixel fills what
the warp uncovers. There is no further antialiasing: the strongest reduction, 1 / 1.2, is too weak
to need it, and a low-pass filter would wipe out the fine traces a detector looks for.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class AffineRanges:
    """How far a copy may be warped; each value is drawn evenly from its range.

    Attributes:
        rotation: Up to so many degrees to either side.
        shift: Up to this share of the width, and of the height, to either side.
        shear: Horizontal shift of a row for each row below the centre, to either side.
        zoom: Scale from 1 - zoom to 1 + zoom, for width and height apart.
        flip: Whether half of the copies are mirrored from left to right.
    """

    rotation: float
    shift: float
    shear: float
    zoom: float
    flip: bool


def draw_affine(
    ranges: AffineRanges, *, width: int, height: int, generator: np.random.Generator
) -> np.ndarray:
    """A random affine map about the image's centre.

    Args:
        ranges: What to draw from.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        generator: The source of randomness; seven values are drawn whatever the ranges.

    Returns:
        Shape (2, 3), float64: from a pixel of the copy to the pixel of the original it shows.
    """
    u = generator.uniform(-1, 1, size=7)
    angle = math.radians(ranges.rotation) * u[0]
    shift_x, shift_y = ranges.shift * width * u[1], ranges.shift * height * u[2]
    zoom_x, zoom_y = 1 + ranges.zoom * u[4], 1 + ranges.zoom * u[5]
    mirror = -1.0 if ranges.flip and u[6] < 0 else 1.0
    rotation = np.array([
        [math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)],
    ])  # fmt: skip
    shear = np.array([[1.0, ranges.shear * u[3]], [0.0, 1.0]])
    linear = rotation @ shear @ np.diag([zoom_x * mirror, zoom_y])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre - linear @ centre + np.array([shift_x, shift_y])
    return np.hstack([linear, offset[:, None]])


def warp(pixels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Apply a map of `draw_affine`; shape (height, width, 3), uint8, in and out."""
    height, width = pixels.shape[:2]
    return cv2.warpAffine(
        pixels, affine, (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def copy_generator(seed: int, path: str, number: int) -> np.random.Generator:
    """Randomness that depends on the seed, the original's path and the copy's number alone."""
    digest = hashlib.sha256(f"{seed}\0{path}\0{number}".encode("utf-8", "surrogateescape"))
    return np.random.default_rng(int.from_bytes(digest.digest()[:16], "little"))
