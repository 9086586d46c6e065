"""Compute the points of curves and histograms from labels and scores, for figures.py.

points = roc_points(is_fake, probability_fake)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve, roc_curve

from real_vs_ai.evaluation.metric_sums import CALIBRATION_BINS


@dataclass(frozen=True)
class Curve:
    """A line to draw.

    Attributes:
        name: What it is of, for the legend.
        x: Shape (n_points,), 0 to 1.
        y: Shape (n_points,), 0 to 1.
        summary: The number that sums it up (area, average precision), with its interval.
        n: Images behind it.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    summary: dict[str, float] | None
    n: int


@dataclass(frozen=True)
class ReliabilityBins:
    """Stated probability and observed share, in equal-width bins; empty bins are left out.

    Attributes:
        name: "before calibration", "after calibration".
        stated: Mean probability in each bin, shape (n_bins,).
        observed: Share of images of the class in each bin, shape (n_bins,).
        counts: Images in each bin, shape (n_bins,).
        error: Expected calibration error.
        margins: How far the 95 % interval of each observed share (Wilson 1927) reaches below and
            above it, shape (2, n_bins).
    """

    name: str
    stated: np.ndarray
    observed: np.ndarray
    counts: np.ndarray
    error: float
    margins: np.ndarray


def roc_points(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False-positive rate and recall over all thresholds; both classes must be there."""
    false_positive_rate, recall, _ = roc_curve(positive, scores)
    return false_positive_rate, recall


def precision_recall_points(
    positive: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision over all thresholds, recall rising."""
    precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    return recall[::-1], precision[::-1]


def risk_coverage_points(
    labels: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage, and the share of mistakes in it, when the most confident images are answered.

    Args:
        labels: Integer class of each image, shape (n_images,), at least one.
        probabilities: Shape (n_images, n_classes).
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = probabilities.argmax(axis=1)[order] != labels[order]
    counts = np.arange(1, len(wrong) + 1)
    return counts / len(wrong), np.cumsum(wrong) / counts


def reliability_bins(
    hits: np.ndarray, stated: np.ndarray, *, name: str, error: float
) -> ReliabilityBins:
    """Bin stated probabilities.

    Args:
        hits: Whether the stated class was right, shape (n_images,), bool.
        stated: Its probability, shape (n_images,), 0 to 1.
        name: For the legend.
        error: Expected calibration error, for the legend.
    """
    index = np.clip(np.ceil(stated * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    counts = np.bincount(index, minlength=CALIBRATION_BINS)
    filled = counts > 0
    sums = np.bincount(index, weights=stated, minlength=CALIBRATION_BINS)
    observed = np.bincount(index, weights=hits, minlength=CALIBRATION_BINS)
    share = observed[filled] / counts[filled]
    intervals = [
        binomtest(int(k), int(n)).proportion_ci(method="wilson")
        for k, n in zip(observed[filled], counts[filled], strict=True)
    ]
    low, high = (np.array([getattr(part, end) for part in intervals]) for end in ("low", "high"))
    return ReliabilityBins(
        name=name,
        stated=sums[filled] / counts[filled],
        observed=share,
        counts=counts[filled],
        error=error,
        margins=np.maximum(0, [share - low, high - share]),
    )
