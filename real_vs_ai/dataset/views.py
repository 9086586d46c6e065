"""Draw random training crops of an image, each after a random history.

A history is what happens to pictures between their maker and the reader: they are resampled, and
recompressed once or twice. Every class goes through the same histories, so that neither compression
nor sharpness gives a class away.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from real_vs_ai.core.images import DecodedImage
from real_vs_ai.models.model_input import ModelInput, crop, pad_to, reduce_shorter, reduce_to
from real_vs_ai.perturbations.histories import capture, compress, simulate_web_history

# A picture is never shrunk below this, in pixels of its shorter side, or to less than a quarter.
_SHORTEST_SIDE = 200
_SMALLEST_FACTOR = 0.25
_SHARE_RESAMPLED = 0.65
# Pixels around a crop that its history may use up.
_MARGIN = 24
# Galleries put their marks into the lower right corner of large pictures.
_CORNER = 0.9
_SMALLEST_WITH_MARKS = 400
# The overview's shorter side, as multiples of the crop, and that of what it is reduced from, of it.
_OVERVIEW_SIDES = (1.2, 2.0)
_OVERVIEW_SOURCE = (1.2, 2.0)
# Crops of sky or paper say nothing; of a few draws, one with something in it is taken.
_DRAWS = 4
_FLAT_DEVIATION = 1.5
_FLAT_SHARE = 0.5
_TILE = 16


@dataclass(frozen=True)
class ViewOptions:
    """What training sees of each image.

    Attributes:
        history: Share of the views that go through a random history, 0 to 1.
        encoded: Share of these histories, where the file is no JPEG, that begin with its traces, 0
            to 1. Other formats are mostly fakes' in public collections.
        screenshots: Share of these histories that end with a screenshot, 0 to 1.
    """

    count: int
    history: float
    seed: int
    screenshots: float = 0.0
    encoded: float = 0.7


def draw_views(
    image: DecodedImage, model_input: ModelInput, options: ViewOptions, *, name: str
) -> np.ndarray:
    """Random views of one image.

    Args:
        model_input: Crops; as many views are of the overview as the model looks at in proportion.
        name: Of the image: the same name and seed give the same views.

    Returns:
        Shape (count, size, size, 3), uint8.
    """
    pixels = reduce_to(image, model_input.longest_side)
    encoded = 0.0 if image.format == "JPEG" else options.encoded
    key = zlib.crc32(name.encode("utf-8", "surrogateescape"))
    views = []
    for view in range(options.count):
        generator = np.random.default_rng((options.seed, key, view))
        if generator.random() < model_input.overview / model_input.views:
            views.append(_draw_of_overview(pixels, generator, options, size=model_input.size))
            continue
        views.append(_draw_view(pixels, generator, options, size=model_input.size, encoded=encoded))
    return np.stack(views)


def _draw_of_overview(
    pixels: np.ndarray, generator: np.random.Generator, options: ViewOptions, *, size: int
) -> np.ndarray:
    """A crop of the reduced image, which may have been a smaller picture of the web before."""
    low, high = np.log(_OVERVIEW_SIDES)
    side = size * float(np.exp(generator.uniform(low, high)))
    if generator.random() < options.history:
        pixels = reduce_shorter(pixels, side * generator.uniform(*_OVERVIEW_SOURCE))
        pixels = compress(pixels, generator)
    return _crop_somewhere(reduce_shorter(pixels, side), generator, size=size)


def _draw_view(
    pixels: np.ndarray,
    generator: np.random.Generator,
    options: ViewOptions,
    *,
    size: int,
    encoded: float,
) -> np.ndarray:
    if generator.random() < options.history:
        factor = _draw_factor(generator, shorter_side=min(pixels.shape[:2]))
        # Only the part that the crop comes from: a whole picture would take ten times as long.
        needed = int(np.ceil((size + _MARGIN) / factor))
        part = _draw_part(pixels, generator, side=needed)
        part = simulate_web_history(part, generator, factor=factor, size=size, encoded=encoded)
        if generator.random() < options.screenshots:
            part = capture(part, generator)
    else:
        part = _draw_part(pixels, generator, side=size)
    return _crop_somewhere(part, generator, size=size)


def _crop_somewhere(pixels: np.ndarray, generator: np.random.Generator, *, size: int) -> np.ndarray:
    """A square at a random place, mirrored half of the time."""
    pixels = pad_to(pixels, size)
    top, left = (int(generator.integers(0, side - size + 1)) for side in pixels.shape[:2])
    view = crop(pixels, top, left, size=size)
    return view[:, ::-1] if generator.random() < 0.5 else view


def _draw_factor(generator: np.random.Generator, *, shorter_side: int) -> float:
    smallest = max(_SMALLEST_FACTOR, min(1.0, _SHORTEST_SIDE / shorter_side))
    factor = float(np.exp(generator.uniform(np.log(smallest), 0)))
    return factor if generator.random() < _SHARE_RESAMPLED else 1.0


def _draw_part(pixels: np.ndarray, generator: np.random.Generator, *, side: int) -> np.ndarray:
    """A random part with sides of at most `side` pixels, the least flat of a few draws."""
    height, width = (min(side, length) for length in pixels.shape[:2])
    best, least = pixels[:height, :width], np.inf
    for _ in range(_DRAWS):
        top = int(generator.integers(0, pixels.shape[0] - height + 1))
        left = int(generator.integers(0, pixels.shape[1] - width + 1))
        if _touches_corner(top + height, left + width, height, shape=pixels.shape):
            continue
        part = pixels[top : top + height, left : left + width]
        flat = _flat_share(part)
        if flat < least:
            best, least = part, flat
        if least < _FLAT_SHARE:
            break
    return best


def _touches_corner(bottom: int, right: int, height: int, *, shape: tuple[int, ...]) -> bool:
    """Whether a small part of a large picture holds its lower right corner."""
    rows, columns = shape[:2]
    if min(rows, columns) < _SMALLEST_WITH_MARKS or height >= 0.8 * rows:
        return False
    return bottom > _CORNER * rows and right > _CORNER * columns


def _flat_share(pixels: np.ndarray) -> float:
    """The share of small tiles that hardly vary; 0 where the image is smaller than a tile."""
    green = pixels[..., 1].astype(np.float32)
    rows, columns = (length // _TILE for length in green.shape)
    if not rows * columns:
        return 0.0
    whole = green[: rows * _TILE, : columns * _TILE]
    tiles = whole.reshape(rows, _TILE, columns, _TILE)
    return float((tiles.std(axis=(1, 3)) < _FLAT_DEVIATION).mean())
