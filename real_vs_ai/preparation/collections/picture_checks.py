"""Tell pictures from blanks, posters and sheets by their pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from real_vs_ai.out_of_distribution.pixel_classifier import are_plain

# A picture whose brightest and darkest pixels differ by less shows nothing.
_LEAST_CONTRAST = 12
_LONGEST_SIDE = 2048
# Enough for what follows; a camera's photograph takes a tenth of the time.
_SHRUNK_SIDE = 1024
# A seam: most pixels of a line jump, and jump several times further than those of lines near it.
_SEAM_STEP, _SEAM_SHARE, _SEAM_RATIO = 12, 0.6, 4
_SEAM_NEAR = 8
_MOST_TILES = 6
# A gutter: some lines of one value across the picture, with content on both sides.
_GUTTER_RANGE, _GUTTER_WIDTH = 6, 4


def shrink(image: Image.Image) -> Image.Image:
    """A picture by a whole factor smaller, with a longer side of at most 1,024 pixels."""
    return image.reduce(-(-max(image.size) // _SHRUNK_SIDE))


def is_blank(image: Image.Image) -> bool:
    """Whether a picture shows nothing."""
    small = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    darkest, brightest = small.getextrema()
    return brightest - darkest < _LEAST_CONTRAST


def is_plain(image: Image.Image) -> bool:
    """Whether most of a picture is flat or of one colour, as posters and diagrams are.

    Such pictures are nearly all generated ones here, so a model would learn the layout.
    """
    if max(image.size) > _LONGEST_SIDE:
        image = image.copy()
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BOX)
    return are_plain(np.asarray(image)[None])


def is_sheet(grey: np.ndarray) -> bool:
    """Whether a picture is a grid of equal tiles, or parted by lines of one colour.

    Args:
        grey: Shape (height, width), uint8.
    """
    return any(_has_seams(lines) or _has_gutter(lines) for lines in (grey, grey.T))


def _has_seams(grey: np.ndarray) -> bool:
    """Whether columns jump wherever tiles of equal width would meet."""
    width = grey.shape[1]
    steps = np.abs(np.diff(grey.astype(np.int16), axis=1))
    share = (steps > _SEAM_STEP).mean(axis=0)
    for tiles in range(2, _MOST_TILES + 1):
        seams = [width * tile // tiles - 1 for tile in range(1, tiles)]
        if all(_is_seam(share, seam) for seam in seams):
            return True
    return False


def _is_seam(share: np.ndarray, place: int) -> bool:
    low = max(0, place - _SEAM_NEAR)
    near = share[low : place + _SEAM_NEAR + 1]
    at = low + int(np.argmax(near))
    others = np.delete(near, [i for i in range(at - low - 1, at - low + 2) if 0 <= i < len(near)])
    return bool(
        abs(at - place) <= 2
        and share[at] > _SEAM_SHARE
        and share[at] > _SEAM_RATIO * (np.median(others) + 0.02)
    )


def _has_gutter(grey: np.ndarray) -> bool:
    flat = np.ptp(grey, axis=0) <= _GUTTER_RANGE
    inside = np.flatnonzero(~flat)
    if not len(inside):
        return False
    between = flat[inside[0] : inside[-1] + 1]
    # The longest run of flat columns between columns with content.
    runs = np.diff(np.flatnonzero(np.concatenate(([1], ~between, [1]))))
    return bool(runs.max() - 1 >= _GUTTER_WIDTH)
