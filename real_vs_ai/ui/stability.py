"""Does a verdict hold when the image is treated as images are on their way through the web?

    variants = judge_variants(pixels, predict_batch=service.predict_batch)

`judging.judge_upload` makes a verdict that flips Uncertain.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from real_vs_ai.serving.detector import Verdict

# Longer images have no JPEG; whoever makes one reduces them first.
_LONGEST_JPEG_SIDE = 65_500


@dataclass(frozen=True)
class Variant:
    """One treated copy of an image.

    Attributes:
        name: The treatment, for people.
        verdict: What the detector says of the copy.
    """

    name: str
    verdict: Verdict


def judge_variants(
    pixels: np.ndarray, *, predict_batch: Callable[[list[np.ndarray]], list[Verdict]]
) -> tuple[Variant, ...]:
    """Treat an image in the usual ways and judge each copy.

    Args:
        pixels: Upright, shape (height, width, 3), uint8.
        predict_batch: The detector.
    """
    image = Image.fromarray(pixels)
    variants = []
    for name, treat in _TREATMENTS:
        # One copy at a time: of a large photograph a dozen copies would fill the memory.
        verdict = predict_batch([np.asarray(treat(image))])[0]
        variants.append(Variant(name, verdict))
    return tuple(variants)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    longest = max(image.size)
    if longest > _LONGEST_JPEG_SIDE:
        image = _resize(image, _LONGEST_JPEG_SIDE / longest)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _resize(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR)


def _crop(image: Image.Image, share: float) -> Image.Image:
    """The middle of the image, `share` of its width and height."""
    dx = int(image.width * (1 - share) / 2)
    dy = int(image.height * (1 - share) / 2)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


_TREATMENTS: tuple[tuple[str, Callable[[Image.Image], Image.Image]], ...] = (
    ("JPEG at quality 90", lambda image: _jpeg(image, 90)),
    ("JPEG at quality 70", lambda image: _jpeg(image, 70)),
    ("JPEG at quality 40", lambda image: _jpeg(image, 40)),
    ("reducing to three quarters", lambda image: _resize(image, 0.75)),
    ("reducing to half", lambda image: _resize(image, 0.5)),
    ("a slight blur", lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    ("cropping to 90 %", lambda image: _crop(image, 0.9)),
    ("cropping to 75 %", lambda image: _crop(image, 0.75)),
)
