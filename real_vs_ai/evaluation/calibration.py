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
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from real_vs_ai.core.errors import InputError
from real_vs_ai.models.model_file import ModelMetadata, calibrate
from real_vs_ai.models.model_input import logarithms
from real_vs_ai.verdicts.thresholds import (
    Threshold,
    choose_threshold,
    choose_threshold_for_new_source,
)

# Beyond these a network is not miscalibrated but broken.
_TEMPERATURES = (0.05, 20.0)
# Of a new source, generated images may be called Real so many times as often as real ones Fake: a
# false accusation is the worse mistake.
_MISSES = 2.0


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
    fit = minimize(
        cross_entropy, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=[(low, high), (None, None)]
    )
    slope, offset = fit.x
    return float(1 / slope), float(offset)


def calibrate_metadata(
    metadata: ModelMetadata,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    target_error: float,
    sources: np.ndarray | None = None,
    kinds: np.ndarray | None = None,
    refused: np.ndarray | None = None,
) -> tuple[ModelMetadata, dict[str, Any]]:
    """Fit calibration and thresholds on validation images.

    Args:
        probabilities: Uncalibrated.
        target_error: Share of certain verdicts that may be wrong, 0 to 0.5, for Fake and Real; with
            `sources`, expected share of a new source's real images, drawn like these, that may be
            called Fake; twice that of its generated ones, and of those of each kind, may be
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
        threshold = choose_threshold(confidence, correct, target_error=target_error, lowest=0.0)
        fitted = dataclasses.replace(fitted, minimum_confidence=threshold.value)
        return fitted, _thresholds_found(
            {"minimum_confidence": threshold}, target_error=target_error
        )
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


def _thresholds_found(bounds: dict[str, Threshold], *, target_error: float) -> dict[str, Any]:
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
