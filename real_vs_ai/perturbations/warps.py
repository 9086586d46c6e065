"""Warp images by one affine map of rotation, shift, shear, zoom and mirroring, for augmentation.

>>> ranges = AffineRanges(rotation=0, shift=0.2, shear=0, zoom=0, flip=False)
>>> draw_affine(ranges, width=32, height=32, draws=(0, 0.5, 0, 0, 0, 0, 0)).tolist()
[[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]

The copies on disk and the batches of a training draw their maps here, so that an option means the
same in both. The parts are composed into one map, so that pixels are interpolated once; the nearest
edge pixel fills what the warp uncovers. There is no further antialiasing, as a low-pass filter
would wipe out the fine traces that a detector looks for.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Larger images are warped as bytes.
_MOST_FLOATS = 2**24


@dataclass(frozen=True)
class AffineRanges:
    """How far a copy may be warped; each value is drawn evenly from its range.

    Attributes:
        rotation: Up to this many degrees to either side.
        shift: Up to this share of the width, and of the height, to either side, in whole pixels.
        shear: Horizontal shift of a row for each row below the centre, to either side.
        zoom: Scale from 1 - zoom to 1 + zoom, for width and height apart.
        flip: Whether half of the copies are mirrored from left to right.
    """

    rotation: float
    shift: float
    shear: float
    zoom: float
    flip: bool


STANDARD_RANGES = AffineRanges(rotation=20.0, shift=0.2, shear=0.2, zoom=0.2, flip=True)


def affine_rows(
    ranges: AffineRanges, *, width: int, height: int, draws: Sequence[Any], xp: Any
) -> list[list[Any]]:
    """Two rows of three numbers: from a pixel of the result to the pixel that it shows.

    Args:
        draws: Seven values from -1 to 1, or seven arrays of them for many images: rotation, shift
            to the right, shift down, shear, zoom of the width, zoom of the height, mirroring.
        xp: The library of the draws: `numpy` or `tensorflow`.
    """
    turn, right, down, slant, wide, high, side = draws
    angle = math.radians(ranges.rotation) * turn
    cosine, sine = xp.cos(angle), xp.sin(angle)
    mirror = xp.where(side < 0, -1.0, 1.0) if ranges.flip else 1.0
    scale_x, scale_y = (1 + ranges.zoom * wide) * mirror, 1 + ranges.zoom * high
    shear = ranges.shear * slant
    # rotation @ shear @ scale, written out: small matrix products cost more than the warp.
    a, b = cosine * scale_x, (cosine * shear - sine) * scale_y
    c, d = sine * scale_x, (sine * shear + cosine) * scale_y
    # A share of a pixel would blur every image, and a network that has seen only blurred ones
    # takes the sharpness of others for a sign of a class.
    shift_x = xp.round(ranges.shift * width * right)
    shift_y = xp.round(ranges.shift * height * down)
    x, y = (width - 1) / 2, (height - 1) / 2
    return [[a, b, x - a * x - b * y + shift_x], [c, d, y - c * x - d * y + shift_y]]


def draw_affine(
    ranges: AffineRanges, *, width: int, height: int, draws: Sequence[float]
) -> np.ndarray:
    """The map of `affine_rows` for one image, shape (2, 3), float64.

    Args:
        draws: Seven values from -1 to 1, as `copy_draws` gives them.
    """
    return np.array(affine_rows(ranges, width=width, height=height, draws=draws, xp=np))


def warp(samples: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Apply a map of `draw_affine`, with bicubic interpolation.

    Args:
        samples: Shape (height, width, 3), as `as_samples` gives them.
        affine: Shape (2, 3).

    Returns:
        Shape (height, width, 3), uint8.
    """
    height, width = samples.shape[:2]
    # Where only the app's packages are, the scripts must get far enough to say so.
    import cv2

    warped = cv2.warpAffine(
        samples,
        affine,
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if warped.dtype == np.uint8:
        return warped
    # The shortest way to round and clip; the second image has no weight.
    return cv2.addWeighted(warped, 1, warped, 0, 0, dtype=cv2.CV_8U)


def as_samples(pixels: np.ndarray) -> np.ndarray:
    """Pixels, shape (height, width, 3), uint8, in the type that is warped fastest.

    OpenCV interpolates floats a quarter faster than bytes, with the same result after rounding;
    large images stay bytes, for floats take four times the memory.
    """
    return pixels.astype(np.float32) if pixels.size <= _MOST_FLOATS else pixels


def copy_draws(seed: int, path: str, number: int) -> tuple[float, ...]:
    """Seven values from -1 to 1 that depend on seed, original's path and copy's number alone.

    They come from a hash, so they are the same with every version of every library.
    """
    key = f"{seed}\0{path}\0{number}".encode("utf-8", "surrogateescape")
    digest = hashlib.shake_256(key).digest(4 * 7)
    return tuple(value / 2**31 - 1 for value in struct.unpack("<7I", digest))
