"""Perturb images as the web does: recompress, resize, blur, crop.

>>> pixels = np.zeros((40, 60, 3), dtype=np.uint8)
>>> half = next(p for p in PERTURBATIONS if p.name == "resized × 0.5")
>>> half.apply(pixels, seed=7).shape
(20, 30, 3)

Training, the model card and the app share these definitions. Each is applied to the image as it is
stored, before it is resized for the network. To add one, add a line to `PERTURBATIONS`.

Augmentation warps images by one affine map of rotation, shift, shear, zoom and mirroring:

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
import io
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from real_vs_ai.images import resize_image
from real_vs_ai.messages import Message

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


def resize_without_filter(pixels: np.ndarray, *, factor: float, interpolation: str) -> np.ndarray:
    """Both sides times a factor, by one of OpenCV's interpolations, which do not antialias."""
    import cv2

    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(pixels, size, interpolation=getattr(cv2, interpolation))


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


# What happens to pictures between their maker and the reader, drawn at random. Ranges are drawn
# from evenly. Recipes of released models need these draws in this order.
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


def live_through(
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
            pixels = resize_without_filter(pixels, factor=factor, interpolation=name)
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
