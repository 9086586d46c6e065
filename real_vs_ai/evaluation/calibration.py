"""Fit a model's temperature and thresholds on its validation images.

    temperature = fit_temperature(labels, probabilities)
    metadata, thresholds = calibrate_metadata(metadata, labels, probabilities, target_error=0.05)

Guo et al. 2017, "On Calibration of Modern Neural Networks"; the targets are smoothed as in Platt
1999, so that a small validation set without a mistake does not ask for endless confidence.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from real_vs_ai.errors import InputError
from real_vs_ai.model_file import ModelMetadata, calibrate

# Beyond these a network is not miscalibrated but broken.
_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Threshold:
    """A bound of the Uncertain band.

    Attributes:
        value: Scores at or above it are certain (at or below it, for the lower bound).
        error: Share of validation images beyond it that are of another class, or None when
            there are none.
        n: How many validation images lie beyond it.
        reached: Whether it keeps the target; otherwise the images were too few, or the model
            too poor, and the threshold is as strict as they ask for.
    """

    value: float
    error: float | None
    n: int
    reached: bool


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature with the lowest cross-entropy.

    Args:
        labels: Integer class of each image, shape (n_images,).
        probabilities: Softmax outputs, shape (n_images, n_classes).

    Raises:
        ValueError: There are no images.
    """
    if not len(labels):
        raise InputError("Expected validation images to fit a temperature, found none.")
    targets = _smoothed_targets(labels, probabilities.shape[1])

    def cross_entropy(log_temperature: float) -> float:
        calibrated = calibrate(probabilities, temperature=float(np.exp(log_temperature)))
        return -float(np.mean(np.sum(targets * np.log(np.maximum(calibrated, 1e-300)), axis=1)))

    bounds = tuple(np.log(_TEMPERATURES))
    return float(np.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x))


def choose_threshold(
    scores: np.ndarray, correct: np.ndarray, *, target_error: float, lowest: float
) -> Threshold:
    """The lowest score above which at most `target_error` of the images are wrong.

    One imagined mistake is added to those seen, as in conformal risk control (Angelopoulos et al.
    2024), so that few images cannot promise much. It is no guarantee: the share of mistakes among
    what is left certain is no monotone risk, and the best of many thresholds flatters itself (with
    hundreds of images by a fraction of the target). Where the target cannot be had so, the mistakes
    seen must keep it; where even the best score is wrong, nothing is certain: the threshold is 1.

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
        return Threshold(value=1.0, error=None, n=0, reached=False)
    end = int(safe[-1] if len(safe) else seen[-1])
    # Between two scores, so that rounding in another engine does not turn verdicts.
    is_last = end == len(ordered) - 1
    value = lowest if is_last else float(ordered[end] + ordered[end + 1]) / 2
    return Threshold(
        value=value, error=float(wrong[end] / (end + 1)), n=end + 1, reached=bool(len(safe))
    )


def calibrate_metadata(
    metadata: ModelMetadata, labels: np.ndarray, probabilities: np.ndarray, *, target_error: float
) -> tuple[ModelMetadata, dict]:
    """Fit temperature and thresholds on validation images.

    Args:
        metadata: Of the model that gave the probabilities.
        labels: Integer class of each image, shape (n_images,).
        probabilities: Uncalibrated softmax outputs, shape (n_images, n_classes).
        target_error: Share of certain verdicts that may be wrong, for Fake and Real alike.

    Returns:
        The metadata with them, and what is known of the thresholds, for the report.
    """
    if not 0 < target_error < 0.5:
        raise InputError(f"Expected a target error between 0 and 0.5, received {target_error}.")
    temperature = fit_temperature(labels, probabilities)
    calibrated = calibrate(probabilities, temperature=temperature)
    fitted = dataclasses.replace(metadata, temperature=temperature, calibrated=True)
    positive = metadata.positive_index
    if positive is None:
        confidence = calibrated.max(axis=1)
        correct = calibrated.argmax(axis=1) == labels
        found = choose_threshold(confidence, correct, target_error=target_error, lowest=0.0)
        fitted = dataclasses.replace(fitted, minimum_confidence=found.value)
        bounds = {"minimum_confidence": found}
    else:
        fake, is_fake = calibrated[:, positive], labels == positive
        upper = choose_threshold(fake, is_fake, target_error=target_error, lowest=0.5)
        lower = choose_threshold(1 - fake, ~is_fake, target_error=target_error, lowest=0.5)
        lower = dataclasses.replace(lower, value=1 - lower.value)
        fitted = dataclasses.replace(
            fitted, lower_threshold=lower.value, upper_threshold=upper.value
        )
        bounds = {"lower": lower, "upper": upper}
    return fitted, _thresholds_found(bounds, target_error=target_error)


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
