"""Compare the size of images with the training images'.

Every image is resized to the network's square. One much larger than the training images loses the
fine detail where generators leave their traces; one much smaller never had it. An image's scale is
the square root of its area in pixels: resizing reduces it by scale / image_size on average.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from real_vs_ai.verdict import Reason, ReasonCode

# A few training images of odd sizes do not make such sizes in-distribution.
_QUANTILES = {"low": 0.01, "median": 0.5, "high": 0.99}
# Larger or smaller by more than this factor is out-of-distribution. On thumbnails of 64 pixels a
# model trained at 32 was measured to be right half of the time, and certain.
_LARGEST_FACTOR = 1.5


def summarise_training_images(
    widths: Sequence[int], heights: Sequence[int], sources: Sequence[str]
) -> dict[str, Any]:
    """Summarise the training images for `ModelMetadata.training_images`.

    Args:
        widths: Upright, in pixels, shape (n_images,).
        sources: The data set each image came from; "" where it is not known.

    Returns:
        `scale`: quantiles of the images' scales in pixels; `sources`: images of each source.
        {} without images.
    """
    areas = np.asarray(widths, dtype=np.float64) * np.asarray(heights, dtype=np.float64)
    if not areas.size:
        return {}
    quantiles = np.quantile(np.sqrt(areas), list(_QUANTILES.values()))
    scale = {
        name: round(float(value), 1) for name, value in zip(_QUANTILES, quantiles, strict=True)
    }
    counts = Counter(str(source) for source in sources if source)
    return {"scale": scale, "sources": dict(sorted(counts.items()))}


def compare_size(
    width: int,
    height: int,
    training_images: Mapping[str, Any],
    *,
    reduced_from: tuple[int, int] | None = None,
) -> Reason | None:
    """Why an image of this upright size, in pixels, is out-of-distribution, or None.

    Args:
        training_images: `ModelMetadata.training_images`; without sizes every size passes.
        reduced_from: Its width and height before the model reduced it.
    """
    if size_distance(width, height, training_images) <= _LARGEST_FACTOR:
        return None
    size = f"{width} × {height}"
    if reduced_from not in (None, (width, height)):
        size = f"{reduced_from[0]} × {reduced_from[1]}, reduced to {size}"
    return Reason(
        ReasonCode.SIZE,
        f"This model only knows pictures of {describe_sizes(training_images)}; yours is {size}, so "
        "any answer would be a guess.",
    )


def usual_scale(training_images: Mapping[str, Any]) -> float | None:
    """The middle of the training images' scales, or None where a model file does not tell them."""
    known = _scale_range(training_images)
    return math.sqrt(math.prod(known)) if known else None


def size_distance(width: int, height: int, training_images: Mapping[str, Any]) -> float:
    """How many times an image's scale lies beyond the training images', 1 where it is usual.

    Args:
        training_images: `ModelMetadata.training_images`; without sizes every size is usual.
    """
    known = _scale_range(training_images)
    if known is None:
        return 1.0
    scale = math.sqrt(width * height)
    return max(1.0, known[0] / scale, scale / known[1])


def describe_sizes(training_images: Mapping[str, Any], *, crops: bool = False) -> str:
    """The training images' sizes for people: "about 32 × 32 pixels"; "" where not known.

    Args:
        crops: Whether the model judges crops, and so reduces larger images first.
    """
    known = _scale_range(training_images)
    if known is None:
        return ""
    smallest, largest = (f"{round(scale)} × {round(scale)}" for scale in known)
    if crops:
        return f"about {smallest} pixels or more"
    if smallest == largest:
        return f"about {largest} pixels"
    return f"about {smallest} to {largest} pixels"


def _scale_range(training_images: Mapping[str, Any]) -> tuple[float, float] | None:
    """The smallest and the largest usual scale, or None where a model file does not tell them."""
    scale = training_images.get("scale") if isinstance(training_images, Mapping) else None
    if not isinstance(scale, Mapping):
        return None
    try:
        low, high = float(scale["low"]), float(scale["high"])
    except (KeyError, TypeError, ValueError):
        return None
    # Do not trust values from the file; NaN fails these comparisons.
    return (low, high) if 0 < low <= high < math.inf else None
