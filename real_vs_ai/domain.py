"""Which images a model learnt from, as far as their size tells, and which are unlike them.

    domain = summarise_domain(widths, heights, sources)       # into ModelMetadata.domain
    fit = compare_with_domain(4000, 3000, domain)
    fit.note                                     # "At 4000 × 3000 pixels it is much larger …"

Every image is resized to the network's square. One that is several times larger than those of the
training arrives there without its finest detail, where generators leave their traces and where the
network learnt to look; one that is several times smaller arrives blurred. An image's scale here is
the square root of its area in pixels: the resizing reduces it by scale / image_size on average.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# A few odd sizes among the training images do not make such images familiar.
_QUANTILES = {"low": 0.01, "median": 0.5, "high": 0.99}
# Beyond a factor of two the finest octave of what the network learnt from is gone: worth a word.
# Beyond four at most a quarter of the detail is left in each direction: no ground for a verdict.
_NOTED_FACTOR = 2.0
_OUTSIDE_FACTOR = 4.0


@dataclass(frozen=True)
class DomainFit:
    """How an image compares with the images a model learnt from.

    Attributes:
        note: What is unlike them, one sentence for people, or "".
        outside: Whether it is so unlike them that the model's answer is no ground for a verdict.
    """

    note: str = ""
    outside: bool = False

    def otherwise(self, other: DomainFit) -> DomainFit:
        """This one, unless the other has the stronger objection."""
        return other if other.outside and not self.outside else self


# Nothing unlike is known: also of models that say nothing of the images they learnt from.
FAMILIAR = DomainFit()


def summarise_domain(
    widths: Sequence[int], heights: Sequence[int], sources: Sequence[str]
) -> dict[str, Any]:
    """What `ModelMetadata.domain` holds, from the training images.

    Args:
        widths: Upright width of each training image in pixels, shape (n_images,).
        heights: Upright height of each, shape (n_images,).
        sources: The data set each came from, shape (n_images,); "" where it is not known.

    Returns:
        `scale`: quantiles of the images' scales in pixels; `sources`: images of each source.
        {} without images.
    """
    areas = np.asarray(widths, dtype=np.float64) * np.asarray(heights, dtype=np.float64)
    if not areas.size:
        return {}
    scale = {
        name: round(float(value), 1)
        for name, value in zip(
            _QUANTILES, np.quantile(np.sqrt(areas), list(_QUANTILES.values())), strict=True
        )
    }
    counts = Counter(str(source) for source in sources if source)
    return {"scale": scale, "sources": dict(sorted(counts.items()))}


def compare_with_domain(width: int, height: int, domain: Mapping[str, Any]) -> DomainFit:
    """Compare an image's size with the training images'.

    Args:
        width: Of the image, upright, in pixels.
        height: As width.
        domain: `ModelMetadata.domain`; one that says nothing of sizes finds nothing unlike.
    """
    known = _scale_range(domain)
    if known is None:
        return FAMILIAR
    low, high = known
    scale = math.sqrt(width * height)
    larger, smaller = scale / high, low / scale
    factor = max(larger, smaller)
    if factor <= _NOTED_FACTOR:
        return FAMILIAR
    kind = "larger" if larger > smaller else "smaller"
    note = (
        f"At {width} × {height} pixels it is much {kind} than the images this model learnt from "
        f"({describe_sizes(domain)}), and "
    )
    if larger > smaller:
        note += "loses the fine detail that the model judges by when it is reduced for it."
    else:
        note += "lacks the fine detail that the model judges by."
    return DomainFit(note, outside=factor > _OUTSIDE_FACTOR)


def describe_sizes(domain: Mapping[str, Any]) -> str:
    """The training images' sizes for people: "about 32 × 32 pixels"; "" where not known."""
    known = _scale_range(domain)
    if known is None:
        return ""
    smallest, largest = (f"{round(scale)} × {round(scale)}" for scale in known)
    if smallest == largest:
        return f"about {largest} pixels"
    return f"about {smallest} to {largest} pixels"


def _scale_range(domain: Mapping[str, Any]) -> tuple[float, float] | None:
    """The smallest and the largest usual scale, or None where a model file does not tell them."""
    scale = domain.get("scale") if isinstance(domain, Mapping) else None
    if not isinstance(scale, Mapping):
        return None
    try:
        low, high = float(scale["low"]), float(scale["high"])
    except (KeyError, TypeError, ValueError):
        return None
    # Of a stranger's file nothing is taken for granted; NaN fails these comparisons.
    return (low, high) if 0 < low <= high < math.inf else None
