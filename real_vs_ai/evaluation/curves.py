"""Draw how a model's probabilities rank images, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from real_vs_ai.core.config import POSITIVE_CLASS
from real_vs_ai.core.intervals import share_interval
from real_vs_ai.evaluation.figures import (
    BLUE,
    GREY,
    ORANGE,
    THOUSANDS,
    line_look,
    new_figure,
    save_figure,
    shorten,
    styled,
)
from real_vs_ai.evaluation.metrics import calibration_bins
from real_vs_ai.evaluation.tables import interval_text
from real_vs_ai.verdicts.predictions import Predictions
from real_vs_ai.verdicts.verdict import uncertain_range

_HISTOGRAM_EDGES = np.linspace(0, 1, 41)
# More classes than colours make curves that nobody can tell apart.
_MOST_CURVES = 7
# From this false-positive rate on the ROC curve is drawn.
_LOWEST_RATE = 1e-3
# Bins of fewer images than this say little.
_FEW = 30
_MARGIN = 0.03


@dataclass(frozen=True)
class Ranked:
    """Images by their score for one class.

    Attributes:
        of: Which class against which, for the titles.
        name: What tells it from the others, for the legend.
        is_positive: Shape (n_images,), bool.
        scores: Shape (n_images,), 0 to 1.
        numbers: The metrics of the class.
    """

    of: str
    name: str
    is_positive: np.ndarray
    scores: np.ndarray
    numbers: Mapping[str, Any]


def rank_classes(splits: Mapping[str, Predictions], metrics: Mapping[str, Any]) -> list[Ranked]:
    """Fake in each split, or each class in the first one; no class of all images or of none.

    Args:
        metrics: The contents of `metrics.json`.
    """
    main = next(iter(splits))
    names, index = splits[main].class_names, splits[main].positive_index
    if index is not None:
        of = f"positive class {POSITIVE_CLASS}"
        wanted = [(split, index, split) for split in splits]
    else:
        of = f"each class against the rest, {main}"
        wanted = [(main, i, name) for i, name in enumerate(names[:_MOST_CURVES])]
    ranked = [
        Ranked(
            of,
            name,
            splits[split].labels == index,
            splits[split].calibrated[:, index],
            metrics[split]["per_class"][names[index]],
        )
        for split, index, name in wanted
    ]
    return [one for one in ranked if one.is_positive.any() and not one.is_positive.all()]


@styled
def draw_roc(ranked: Sequence[Ranked], *, path: Path) -> None:
    """Recall against the logarithm of the false-positive rate, with area and interval."""
    figure, (axes,) = new_figure(width=8.0, height=6.4)
    rates = np.geomspace(_LOWEST_RATE, 1)
    axes.plot(rates, rates, color=GREY, lw=1.2, ls=":", label="chance")
    lines = [roc_curve(one.is_positive, one.scores)[:2] for one in ranked]
    _draw_lines(axes, ranked, lines, summary="AUC", metric="roc_auc")
    axes.set(xlabel="false-positive rate (log scale)", ylabel="recall (true-positive rate)")
    axes.set(xscale="log", xlim=(_LOWEST_RATE, 1), title=f"ROC curve, {ranked[0].of}")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    save_figure(figure, path, legend_columns=2)


@styled
def draw_precision_recall(ranked: Sequence[Ranked], *, path: Path) -> None:
    """Precision against recall, with average precision and its interval."""
    figure, (axes,) = new_figure(width=8.0, height=6.4)
    lines = []
    for one in ranked:
        curve = precision_recall_curve(one.is_positive, one.scores, drop_intermediate=True)
        lines.append((curve[1], curve[0]))
    _draw_lines(axes, ranked, lines, summary="AP", metric="average_precision")
    axes.set(xlabel="recall", ylabel="precision", title=f"Precision and recall, {ranked[0].of}")
    save_figure(figure, path, legend_columns=2)


def _draw_lines(
    axes: Axes,
    ranked: Sequence[Ranked],
    lines: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    summary: str,
    metric: str,
) -> None:
    for i, (one, line) in enumerate(zip(ranked, lines, strict=True)):
        name = f"{shorten(one.name)} (n = {len(one.scores):,})"
        label = f"{name}\n{summary} {interval_text(one.numbers.get(metric), digits=3)}"
        axes.plot(*line, **line_look(i), label=label)


def reliability_bins(hits: np.ndarray, stated: np.ndarray) -> dict[str, np.ndarray]:
    """Stated probability and observed share in equal-width bins, of which empty ones are left out.

    Args:
        hits: Whether the stated class was right, shape (n_images,), bool.
        stated: Its probability, shape (n_images,), 0 to 1.

    Returns:
        "stated" (mean), "observed" (share) and "counts" (images) of each bin, and "margins": how
        far the exact 95 % interval of the share reaches below and above it, shape (2, n_bins).
    """
    bins = calibration_bins(stated)
    filled = [bins == index for index in np.unique(bins)]
    shares = [share for own in filled if (share := share_interval(hits[own]))]
    margins = [(s["value"] - s["low"], s["high"] - s["value"]) for s in shares]
    return {
        "stated": np.array([stated[own].mean() for own in filled]),
        "observed": np.array([share["value"] for share in shares]),
        "counts": np.array([own.sum() for own in filled]),
        "margins": np.array(margins).T,
    }


@styled
def draw_reliability(
    rows: Predictions, metrics: Mapping[str, Any], *, calibrated: bool, path: Path
) -> None:
    """Stated probability against observed share, with intervals.

    Args:
        rows: Of one split.
        metrics: The split's part of `metrics.json`.
        calibrated: Whether the calibration was fitted.
    """
    binary = rows.positive_index is not None
    shown = {"as trained": (rows.probabilities, metrics["uncalibrated"])}
    if calibrated:
        shown["calibrated"] = (rows.calibrated, metrics)
    figure, (axes,) = new_figure(height=7.0)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":", label="perfect calibration")
    for i, (name, (probabilities, numbers)) in enumerate(shown.items()):
        hits, stated = _stated(rows, probabilities)
        bins = reliability_bins(hits, stated)
        points, few = (bins["stated"], bins["observed"]), bins["counts"] < _FEW
        look: dict[str, Any] = {"color": (ORANGE, BLUE)[i], "marker": "os"[i]}
        label = f"{name}: ECE {numbers['expected_calibration_error']['value']:.3f}"
        line: dict[str, Any] = {"ls": ("--", "-")[i], "capsize": 3, "label": label}
        axes.errorbar(points[0], points[1], yerr=bins["margins"], **look, **line)
        axes.plot(*(values[few] for values in points), **look, ls="", mfc="white", ms=9)
    x = f"stated probability of {POSITIVE_CLASS}" if binary else "stated confidence"
    y = f"observed share of {POSITIVE_CLASS}" if binary else "observed accuracy"
    limits = (-_MARGIN, 1 + _MARGIN)
    axes.set(xlabel=x, ylabel=y, xlim=limits, ylim=limits, aspect="equal")
    axes.set_title(f"Reliability, 95 % intervals\n(hollow: fewer than {_FEW} images)")
    save_figure(figure, path, legend_columns=2)


def _stated(rows: Predictions, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the image is Fake, and how probable that is; of other classes, the likeliest one."""
    index = rows.positive_index
    if index is not None:
        return rows.labels == index, probabilities[:, index]
    return rows.is_right, probabilities.max(axis=1)


@styled
def draw_scores(rows: Predictions, *, thresholds: Mapping[str, Any], path: Path) -> None:
    """How the scores of each true class are spread, with the Uncertain band."""
    low, high = uncertain_range(thresholds)
    _, scores = _stated(rows, rows.calibrated)
    figure, (axes,) = new_figure(width=8.0)
    for i, name in enumerate(rows.class_names):
        values, edges = np.histogram(scores[rows.labels == i], bins=_HISTOGRAM_EDGES)
        look = line_look(i)
        label = f"{shorten(name)} (n = {int(values.sum()):,})"
        axes.stairs(values, edges, **look, lw=2.4, label=label)
        axes.stairs(values, edges, color=look["color"], fill=True, alpha=0.15)
    if high > low:
        label = f"Uncertain: {low:.2f} to {high:.2f}"
        axes.axvspan(low, high, color=GREY, alpha=0.25, lw=0, label=label)
    score = "confidence of the predicted class"
    if rows.positive_index is not None:
        score = f"probability of {POSITIVE_CLASS}"
    axes.set_yscale("symlog", linthresh=1)
    axes.set(
        xlabel=f"{score}, calibrated",
        ylabel="images (log scale)",
        xlim=(0, 1),
        ylim=(0, None),
        title="Scores by true class",
    )
    axes.yaxis.set_major_formatter(THOUSANDS)
    save_figure(figure, path, legend_columns=3)
