"""Prepare a model's input: the whole image resized, or crops at native resolution.

Training, evaluation, library, command line and app prepare their images here, so that they see the
same pixels. Resizing a photograph to the network's input erases the traces that generators leave;
crops keep them. A few crops of the reduced image, its overview, add what only shows from afar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.images import DecodedImage, resize_image

# Left, top, right and bottom, as shares of an image's sides.
Window = tuple[float, float, float, float]
INPUT_KINDS = ("resize", "crops")
# Larger images are reduced first: beyond this, most are enlarged, noisy, or both.
LONGEST_SIDE = 2048
_MOST_CROPS = 100
# The overview's shorter side, as a multiple of the network's input.
_OVERVIEW_SIDE = 1.5
# Reducing images at least so many times Pillow halves them cheaply first.
_REDUCING_GAP = 3.0
# The overview needs less: two thirds of the time.
_OVERVIEW_GAP = 2.0
# An image counts as much as its mirror image once its probability is so far below the limit.
_MIRROR_RAMP = 0.1


def logarithms(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms of softmax outputs, finite where one is 0."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of each row, (n, n_classes) in and out."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class ModelInput:
    """What a model is fed with for one image.

    Attributes:
        size: Side of the square inputs, in pixels.
        kind: "resize" (the whole image at one size) or "crops".
        overview: Crops of the overview, which count as much as the others; 0: none.
        longest_side: Images whose longer side exceeds it are reduced to it before they are
            cropped, in pixels.
        mirror_below: A whole image whose highest probability is below it is judged again,
            mirrored; see `mix_mirrored`. From 0 (never) to 1.
    """

    size: int
    kind: str = "resize"
    crops: int = 9
    overview: int = 0
    longest_side: int = LONGEST_SIDE
    mirror_below: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that no code here understands, by an InputError."""
        if self.kind not in INPUT_KINDS:
            raise InputError(
                f"Expected an input kind in {', '.join(INPUT_KINDS)}, got {self.kind}."
            )
        if not self.is_crops:
            limit = self.mirror_below
            if not (isinstance(limit, int | float) and 0 <= limit <= 1):
                raise InputError(f"Expected mirror_below from 0 to 1, got {limit!r}.")
            return
        if self.mirror_below:
            raise InputError("Only models of whole images judge images again, mirrored.")
        numbers = (self.crops, self.overview, self.size, self.longest_side)
        whole = all(isinstance(n, int) for n in numbers)
        if not (
            whole
            and 1 <= self.crops <= _MOST_CROPS
            and 0 <= self.overview <= _MOST_CROPS
            and 1 <= self.size <= self.longest_side
        ):
            raise InputError(
                f"Expected 1 to {_MOST_CROPS} crops no larger than the longest side, and at most "
                f"{_MOST_CROPS} of the overview, got {self.crops} and {self.overview} of "
                f"{self.size} pixels and a longest side of {self.longest_side}."
            )

    @property
    def is_crops(self) -> bool:
        return self.kind == "crops"

    @property
    def views(self) -> int:
        """How many network inputs one image makes."""
        return self.crops + self.overview if self.is_crops else 1

    def stored(self) -> dict[str, Any]:
        """What a model file holds of it; the size stands there already."""
        if not self.is_crops:
            mirroring = {"mirror_below": self.mirror_below} if self.mirror_below else {}
            return {"kind": self.kind, **mirroring}
        stored = {"kind": self.kind, "crops": self.crops, "longest_side": self.longest_side}
        return stored | ({"overview": self.overview} if self.overview else {})

    def prepare(self, image: np.ndarray | DecodedImage) -> np.ndarray:
        """The network's inputs for an image or its pixels, shape (views, size, size, 3), uint8."""
        if not self.is_crops:
            return resize_image(image, self.size)[None]
        held = as_pillow(image)
        views = self._crops(held)
        if self.overview:
            size = self._overview_size(*held.size)
            views += self._cut_all(_reduce(held, size, gap=_OVERVIEW_GAP), self.overview)
        return np.stack(views)

    def _crops(self, image: Image.Image) -> list[np.ndarray]:
        width, height = self.seen_size(*image.size)
        if 1 < max(image.size) / max(width, height) < 2 * _REDUCING_GAP and self.size <= min(
            width, height
        ):
            places = self.places(height, width, count=self.crops)
            return [self._cut(image, *place) for place in places]
        return self._cut_all(_reduce(image, (width, height)), self.crops)

    def _cut_all(self, pixels: np.ndarray, count: int) -> list[np.ndarray]:
        """So many crops of pixels, which are padded by reflection if they are small."""
        pixels = pad_to(pixels, self.size)
        places = self.places(*pixels.shape[:2], count=count)
        return [crop(pixels, *place, size=self.size) for place in places]

    def _cut(self, image: Image.Image, top: int, left: int) -> np.ndarray:
        """A crop of the reduced image without the rest of it: a sixth of the time, to rounding."""
        width, height = self.seen_size(*image.size)
        x, y = image.width / width, image.height / height
        right, bottom = min(image.width, (left + self.size) * x), (top + self.size) * y
        box = (left * x, top * y, right, min(image.height, bottom))
        side = (self.size, self.size)
        return np.asarray(image.resize(side, Image.Resampling.LANCZOS, box=box))

    def seen_size(self, width: int, height: int) -> tuple[int, int]:
        """The image's width and height after a large one is reduced: the scale that is judged."""
        if not self.is_crops:
            return width, height
        return _scaled(width, height, self.longest_side / max(width, height))

    def _overview_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the overview; a smaller image is its own."""
        return _scaled(width, height, _OVERVIEW_SIDE * self.size / min(width, height))

    def windows(self, width: int, height: int) -> list[Window]:
        """Left, top, right and bottom of each view, as shares of the image, 0 to 1."""
        if not self.is_crops:
            return [(0.0, 0.0, 1.0, 1.0)]
        windows = self._windows(*self.seen_size(width, height), self.crops)
        if self.overview:
            windows += self._windows(*self._overview_size(width, height), self.overview)
        return windows

    def _windows(self, width: int, height: int, count: int) -> list[Window]:
        padded = [max(0, self.size - side) // 2 for side in (width, height)]
        windows = []
        for top, left in self.places(max(height, self.size), max(width, self.size), count=count):
            starts = [(left - padded[0]) / width, (top - padded[1]) / height]
            ends = [
                start + self.size / side
                for start, side in zip(starts, (width, height), strict=True)
            ]
            x0, y0, x1, y1 = (float(np.clip(edge, 0, 1)) for edge in (*starts, *ends))
            windows.append((x0, y0, x1, y1))
        return windows

    def places(self, height: int, width: int, *, count: int) -> list[tuple[int, int]]:
        """Top and left of each of `count` crops of an image, row by row.

        Crops lie in the middles of a grid's cells, pushed inside where they stick out. A number
        that is not a square takes places evenly from the next larger grid: 5 of 3 × 3 are the
        corners and the centre.

        Args:
            height: Of the image, at least `size` pixels, as is the width.
        """
        side = math.isqrt(count - 1) + 1

        def starts(length: int) -> list[int]:
            middles = (np.arange(side) + 0.5) / side * length
            places = np.clip(np.rint(middles - self.size / 2), 0, length - self.size)
            return places.astype(int).tolist()

        grid = [(top, left) for top in starts(height) for left in starts(width)]
        chosen = np.rint(np.linspace(0, len(grid) - 1, count)).astype(int)
        return [grid[i] for i in chosen] if count > 1 else [grid[len(grid) // 2]]

    def aggregate(self, probabilities: np.ndarray) -> np.ndarray:
        """One row for each image: the softmax of its views' mean logarithms.

        For two classes that is the mean of the views' log-odds.

        Args:
            probabilities: Shape (n_images, views, n_classes).

        Returns:
            Shape (n_images, n_classes), rows summing to 1.
        """
        if probabilities.shape[1] == 1:
            return probabilities[:, 0]
        return softmax(logarithms(np.asarray(probabilities, dtype=np.float64)).mean(axis=1))

    def mix_mirrored(self, first: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """Unsure images' probabilities mixed with their mirror images', each (n, n_classes).

        The mirror image's share rises from 0 at `mirror_below` to a half, so that a small change
        of the first answer never changes the result much.
        """
        missing = (self.mirror_below - first.max(axis=1)) / _MIRROR_RAMP
        share = np.minimum(missing, 1)[:, None] / 2
        return softmax((1 - share) * logarithms(first) + share * logarithms(mirrored))


def read_model_input(stored: Mapping[str, Any], *, size: int) -> ModelInput:
    """The input that a model file describes; {} (an older file) means the whole image, resized.

    Raises:
        InputError: It describes an input that this version does not know.
    """
    if not stored:
        return ModelInput(size)
    try:
        return ModelInput(size, **stored)
    except TypeError as error:
        raise InputError(
            f"Expected a description of crops or resizing, received {dict(stored)}."
        ) from error


def crop(pixels: np.ndarray, top: int, left: int, *, size: int) -> np.ndarray:
    """A square of an image, shape (size, size, 3)."""
    return pixels[top : top + size, left : left + size]


def as_pillow(image: np.ndarray | DecodedImage) -> Image.Image:
    """A decoded image, or pixels of shape (height, width, 3), uint8, as Pillow holds them."""
    return image.image if isinstance(image, DecodedImage) else Image.fromarray(image)


def reduce_to(image: np.ndarray | DecodedImage, longest_side: int) -> np.ndarray:
    """Pixels with the longer side reduced to a limit, antialiased; smaller ones as they are."""
    held = as_pillow(image)
    return _reduce(held, _scaled(*held.size, longest_side / max(held.size)))


def reduce_shorter(pixels: np.ndarray, side: float) -> np.ndarray:
    """Pixels with the shorter side reduced to this, antialiased; smaller ones as they are."""
    held = Image.fromarray(pixels)
    return _reduce(held, _scaled(*held.size, side / min(held.size)), gap=_OVERVIEW_GAP)


def _reduce(image: Image.Image, size: tuple[int, int], *, gap: float = _REDUCING_GAP) -> np.ndarray:
    if size == image.size:
        return np.asarray(image)
    # The result of averaging huge images' blocks first is the same to the eye.
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=gap))


def _scaled(width: int, height: int, factor: float) -> tuple[int, int]:
    """Width and height times a factor below 1; factors from 1 on change nothing."""
    if factor >= 1:
        return width, height
    return max(1, round(width * factor)), max(1, round(height * factor))


def pad_to(pixels: np.ndarray, size: int) -> np.ndarray:
    """The image with sides of at least `size` pixels, mirrored at its edges where it is smaller."""
    missing = [max(0, size - side) for side in pixels.shape[:2]]
    if not any(missing):
        return pixels
    widths = [(n // 2, n - n // 2) for n in missing]
    return np.pad(pixels, (*widths, (0, 0)), mode="reflect")
