"""Choose the scores from which a verdict is certain.

Scores are calibrated confidences in one decision, shape (n_images,); `sources` are names of data
sets, shape (n_images,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# What `thresholds` in metrics.json calls the rule by the expected share of a new source.
NEW_SOURCE = "new source"


@dataclass(frozen=True)
class Threshold:
    """A bound of the Uncertain band.

    Attributes:
        value: Scores at or above it are certain (at or below it, for the lower bound). None where
            nothing is.
        error: Share of validation images beyond it that are of another class, or None when
            there are none.
        n: How many validation images lie beyond it.
        reached: Whether it keeps the target; otherwise the images were too few, or the model
            too poor, and the threshold is as strict as they ask for.
    """

    value: float | None
    error: float | None
    n: int
    reached: bool


_NONE_CERTAIN = Threshold(value=None, error=None, n=0, reached=False)


def choose_threshold(
    scores: np.ndarray, correct: np.ndarray, *, target_error: float, lowest: float
) -> Threshold:
    """The lowest score above which at most `target_error` of the images are wrong.

    One imagined mistake is added to those seen, as in conformal risk control (Angelopoulos et al.
    2024), so that few images cannot promise much. It is no guarantee: the best of many thresholds
    flatters itself. Where the target cannot be had so, the mistakes seen must keep it; where even
    the best score is wrong, nothing is certain, and there is no threshold.

    Args:
        scores: Confidence in one decision, shape (n_images,).
        correct: Whether that decision is right, shape (n_images,), bool.
        target_error: 0 to 1.
        lowest: The threshold when all scores may pass; lower scores are not looked at.
    """
    considered = scores >= lowest
    order = np.argsort(-scores[considered], kind="stable")
    ordered = scores[considered][order]
    wrong = np.cumsum(~correct[considered][order])
    counts = np.arange(1, len(ordered) + 1)
    # Equal scores fall on the same side: only the last of them can end the certain part.
    ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))[: len(ordered)]
    safe = ends[(wrong[ends] + 1) / (counts[ends] + 1) <= target_error]
    seen = ends[wrong[ends] / counts[ends] <= target_error]
    if not len(seen):
        return _NONE_CERTAIN
    end = int(safe[-1] if len(safe) else seen[-1])
    # Between two scores, so that rounding in another engine does not turn verdicts.
    is_last = end == len(ordered) - 1
    value = lowest if is_last else float(ordered[end] + ordered[end + 1]) / 2
    if value >= 1:
        return _NONE_CERTAIN
    return Threshold(
        value=value, error=float(wrong[end] / (end + 1)), n=end + 1, reached=bool(len(safe))
    )


def choose_threshold_for_new_source(
    scores: np.ndarray,
    wrong: np.ndarray,
    sources: np.ndarray,
    *,
    rate: float,
    lowest: float,
    kinds: np.ndarray | None = None,
) -> Threshold:
    """The lowest score whose expected share of mistakes on a new source is at most `rate`.

    Conformal risk control (Angelopoulos et al. 2022) with sources in place of images: every source
    counts alike, and one imagined source of mistakes is added. It holds on average over sources if
    the new one is drawn like these, and says nothing about the worst. Of m sources no rate below
    1 / (m + 1) can be promised; then nothing is certain.

    A source's mistakes gather in a few kinds. The rate must hold in each kind too, as it was seen:
    a kind that is wrong more often would be promised what the others keep.

    Args:
        scores: Confidence in one decision, shape (n_images,).
        wrong: Whether that decision would be wrong, shape (n_images,), bool.
        rate: 0 to 1: mistakes among all images of a source.
        lowest: The threshold when all scores may pass.
        kinds: What made each image, shape (n_images,); those with fewer than 1 / `rate` images of
            the wrong class count together. None for no kinds.
    """
    weights = _source_weights(sources[wrong])
    allowed = rate * (weights.sum() + 1) - 1
    if allowed < -1e-9:
        return _NONE_CERTAIN
    needed = _highest_not_allowed(scores[wrong], weights, allowed=allowed)
    if kinds is not None:
        for own in _large_kinds(kinds[wrong], fewest=math.ceil(1 / rate)):
            weights = _source_weights(sources[wrong][own])
            allowed = rate * weights.sum()
            of_kind = _highest_not_allowed(scores[wrong][own], weights, allowed=allowed)
            needed = max(needed, of_kind)
    passing = scores > needed if needed >= lowest else scores >= lowest
    if not passing.any():
        return _NONE_CERTAIN
    value = float(lowest if needed < lowest else (needed + scores[passing].min()) / 2)
    # Between neighbouring numbers there is no middle.
    value = max(value, float(np.nextafter(needed, 1))) if needed >= lowest else value
    # A wrong score that is rounded to 1 would be as high.
    if value >= 1:
        return _NONE_CERTAIN
    return Threshold(value, float(wrong[passing].mean()), int(passing.sum()), reached=True)


def _source_weights(sources: np.ndarray) -> np.ndarray:
    """Weights of images that let every source count as 1, shape (n_images,)."""
    _, which, counts = np.unique(sources.astype(str), return_inverse=True, return_counts=True)
    return (1 / counts)[which]


def _highest_not_allowed(scores: np.ndarray, weights: np.ndarray, *, allowed: float) -> float:
    """The highest score down to which the images weigh more than allowed; -inf without one."""
    order = np.argsort(-scores, kind="stable")
    first = int(np.searchsorted(np.cumsum(weights[order]), allowed + 1e-9, side="right"))
    return float(scores[order][first]) if first < len(order) else -np.inf


def _large_kinds(kinds: np.ndarray, *, fewest: int) -> list[np.ndarray]:
    """A mask for each kind of at least so many images, and one for all others together."""
    _, which, counts = np.unique(kinds.astype(str), return_inverse=True, return_counts=True)
    masks = [which == index for index in np.flatnonzero(counts >= fewest)]
    others = (counts < fewest)[which]
    return [*masks, others] if others.any() else masks


def explain_missed_targets(thresholds: Mapping[str, Any] | None) -> list[str]:
    """Sentences on thresholds that do not keep their target; see `metrics.json`."""
    thresholds = thresholds or {}
    bounds = thresholds.get("validation", {})
    if all(bound["reached"] for bound in bounds.values()):
        return []
    if thresholds.get("rule") == NEW_SOURCE:
        return [
            "The validation images have too few sources to promise at most "
            f"{100 * thresholds['target_error']:g} % on a new one: a class without a verdict needs "
            f"at least {math.ceil(1 / thresholds['target_error']) - 1} sources of the other class."
        ]
    return [
        "The validation images are too few, or the model too poor, to promise that at most "
        f"{100 * thresholds['target_error']:g} % of the certain verdicts are wrong; many verdicts "
        "will be Uncertain. ModelEvaluation.py --target-error 0.1 asks for less."
    ]
