"""Compute 95 % intervals of shares, over pictures or over the sources that they come from.

>>> never = share_by_source(np.zeros(40, bool), np.repeat(["a", "b", "c", "d"], 10))
>>> round(never["high"], 2)  # as of four pictures, not of forty
0.6
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Interval = dict[str, float]
_ALPHA = 0.05


def exact_interval(hits: float, n: float) -> Interval:
    """A share with its exact interval (Clopper & Pearson 1934).

    Args:
        hits: How often, of `n` times; neither need be whole.
    """
    # scipy takes half a second to load.
    from scipy.special import betaincinv

    hits = min(max(hits, 0.0), n)
    low = betaincinv(hits, n - hits + 1, _ALPHA / 2) if hits > 0 else 0.0
    high = betaincinv(hits + 1, n - hits, 1 - _ALPHA / 2) if hits < n else 1.0
    return {"value": hits / n, "low": float(low), "high": float(high)}


def share_interval(which: np.ndarray) -> Interval | None:
    """The share that is true, with its exact interval over pictures; None of no pictures."""
    return exact_interval(int(np.sum(which)), len(which)) if len(which) else None


def share_by_source(which: np.ndarray, sources: np.ndarray) -> Interval | None:
    """The share that is true, with an interval over sources like these.

    Pictures of one source are alike. The exact interval is that of as many trials as pictures of
    their own would tell, by how the share varies between the sources (Korn & Graubard 1998), and
    never of more trials than there are sources: that none of them accuses says nothing of others.

    Args:
        which: Shape (n_images,), bool.
        sources: The source of each image, shape (n_images,).

    Returns:
        None of no images. With one source, the interval over pictures.
    """
    _, groups = np.unique(sources.astype(str), return_inverse=True)
    counts = np.bincount(groups)
    trials = len(counts)
    if trials < 2:
        return share_interval(which)
    share = float(np.mean(which))
    apart = np.square(np.bincount(groups, weights=which) - share * counts).sum()
    variance = trials / (trials - 1) * apart / len(which) ** 2
    if variance > 0:
        trials = min(trials, share * (1 - share) / variance)
    return exact_interval(share * trials, trials)


def count_sources(sources: np.ndarray) -> int:
    """How many different sources there are."""
    return len(set(map(str, sources)))


def mean_of_shares(shares: Sequence[Interval]) -> Interval:
    """The mean of independent shares, such as balanced accuracy, with its interval.

    The intervals are put together by how far each reaches (Zou & Donner 2008).
    """
    value = sum(share["value"] for share in shares) / len(shares)
    below = math.hypot(*(share["value"] - share["low"] for share in shares)) / len(shares)
    above = math.hypot(*(share["high"] - share["value"] for share in shares)) / len(shares)
    return {"value": value, "low": max(value - below, 0.0), "high": min(value + above, 1.0)}
