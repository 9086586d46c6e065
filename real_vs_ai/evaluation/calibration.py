"""Fit a model's calibration and thresholds on its validation images.

Two classes get a slope and an offset of their log-odds (Platt 1999), others a temperature (Guo et
al. 2017, "On Calibration of Modern Neural Networks"). Classes weigh alike, and sources weigh alike
in each: a probability holds as if half of all images were generated, on sources like these. The
targets are smoothed as Platt does, so that a small validation set without a mistake does not ask
for endless confidence.

`labels` are integer classes, shape (n_images,), `probabilities` softmax outputs, shape (n_images,
n_classes), and `sources` names of data sets, shape (n_images,).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from real_vs_ai.errors import InputError
from real_vs_ai.model_file import ModelMetadata, calibrate
from real_vs_ai.model_input import logarithms

# Beyond these a network is not miscalibrated but broken.
_TEMPERATURES = (0.05, 20.0)
# Of a new source, generated images may be called Real so many times as often as real ones Fake: a
# false accusation is the worse mistake.
_MISSES = 1.5
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


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature with the lowest cross-entropy."""
    targets = _smoothed_targets(labels, probabilities.shape[1])

    def cross_entropy(log_temperature: float) -> float:
        calibrated = calibrate(probabilities, temperature=float(np.exp(log_temperature)))
        return -float(np.mean(np.sum(targets * np.log(np.maximum(calibrated, 1e-300)), axis=1)))

    bounds = tuple(np.log(_TEMPERATURES))
    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x))


def fit_log_odds(
    labels: np.ndarray, probabilities: np.ndarray, *, positive: int, sources: np.ndarray | None
) -> tuple[float, float]:
    """Temperature and offset of the log-odds with the lowest cross-entropy.

    Args:
        probabilities: Of two classes.
        positive: Index of Fake.
        sources: They weigh alike in their class; None for images that do.
    """
    logits = logarithms(np.asarray(probabilities, dtype=np.float64))
    odds = logits[:, positive] - logits[:, 1 - positive]
    is_fake = labels == positive
    weights, targets = np.empty(len(labels)), np.empty(len(labels))
    for of_class in (is_fake, ~is_fake):
        names = np.arange(of_class.sum()) if sources is None else sources[of_class].astype(str)
        _, which, counts = np.unique(names, return_inverse=True, return_counts=True)
        weights[of_class] = (1 / counts)[which] / len(counts)
        own = (len(counts) + 1) / (len(counts) + 2)
        targets[of_class] = own if of_class is is_fake else 1 - own

    def cross_entropy(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, offset = parameters
        scores = slope * odds + offset
        losses = np.logaddexp(0, scores) - targets * scores
        errors = weights * (expit(scores) - targets)
        return float(weights @ losses), np.array([errors @ odds, errors.sum()])

    low, high = (1 / bound for bound in reversed(_TEMPERATURES))
    found = minimize(
        cross_entropy, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=[(low, high), (None, None)]
    )
    slope, offset = found.x
    return float(1 / slope), float(offset)


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


def calibrate_metadata(
    metadata: ModelMetadata,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    target_error: float,
    sources: np.ndarray | None = None,
    kinds: np.ndarray | None = None,
    refused: np.ndarray | None = None,
) -> tuple[ModelMetadata, dict]:
    """Fit calibration and thresholds on validation images.

    Args:
        probabilities: Uncalibrated.
        target_error: Share of certain verdicts that may be wrong, 0 to 0.5, for Fake and Real; with
            `sources`, expected share of a new source's real images, drawn like these, that may be
            called Fake; 1.5 times that of its generated ones, and of those of each kind, may be
            called Real.
        sources: None for thresholds over all images together.
        kinds: What made each image, shape (n_images,), or None. Only used with `sources`.
        refused: Which images get no verdict at any threshold, shape (n_images,), bool; they count
            among their source's all the same. Only used with `sources`.

    Returns:
        The metadata with them, and what is known of the thresholds, for the report.
    """
    positive, offset = metadata.positive_index, 0.0
    if positive is None:
        temperature = fit_temperature(labels, probabilities)
    else:
        temperature, offset = fit_log_odds(
            labels, probabilities, positive=positive, sources=sources
        )
    fitted = dataclasses.replace(metadata, temperature=temperature, offset=offset, calibrated=True)
    calibrated = fitted.calibrate(probabilities)
    if positive is None:
        if sources is not None:
            raise InputError("Expected a model of Fake and Real for thresholds by source.")
        confidence = calibrated.max(axis=1)
        correct = calibrated.argmax(axis=1) == labels
        found = choose_threshold(confidence, correct, target_error=target_error, lowest=0.0)
        fitted = dataclasses.replace(fitted, minimum_confidence=found.value)
        return fitted, _thresholds_found({"minimum_confidence": found}, target_error=target_error)
    fake, is_fake = calibrated[:, positive], labels == positive
    if sources is None:
        upper = choose_threshold(fake, is_fake, target_error=target_error, lowest=0.5)
        lower = choose_threshold(1 - fake, ~is_fake, target_error=target_error, lowest=0.5)
    else:
        # Refused images lie below every threshold.
        below = 0.0 if refused is None else np.where(refused, -np.inf, 0.0)
        misses = min(0.5, _MISSES * target_error)
        choose = functools.partial(choose_threshold_for_new_source, sources=sources, lowest=0.5)
        upper = choose(fake + below, ~is_fake, rate=target_error)
        lower = choose(1 - fake + below, is_fake, rate=misses, kinds=kinds)
    if lower.value is not None:
        lower = dataclasses.replace(lower, value=1 - lower.value)
    fitted = dataclasses.replace(fitted, lower_threshold=lower.value, upper_threshold=upper.value)
    return fitted, _thresholds_found({"lower": lower, "upper": upper}, target_error=target_error)


def _thresholds_found(bounds: dict[str, Threshold], *, target_error: float) -> dict:
    """The `thresholds` of metrics.json: the values, and how they did on validation."""
    return {
        **{name: bound.value for name, bound in bounds.items()},
        "target_error": target_error,
        "validation": {name: dataclasses.asdict(bound) for name, bound in bounds.items()},
    }


def _smoothed_targets(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(n_c + 1) / (n_c + K) for the true class, the rest spread over the other classes."""
    counts = np.bincount(labels, minlength=n_classes)
    own = (counts[labels] + 1) / (counts[labels] + n_classes)
    targets = np.repeat(((1 - own) / (n_classes - 1))[:, None], n_classes, axis=1)
    targets[np.arange(len(labels)), labels] = own
    return targets


def explain_missed_targets(thresholds: Mapping[str, Any] | None) -> list[str]:
    """Sentences on thresholds that do not keep their target; see `metrics.json`."""
    bounds = (thresholds or {}).get("validation", {})
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
