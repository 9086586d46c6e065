"""Compute metrics from labels and probabilities, once for each row of weights.

A row of weights says how often each image counts: all once for the value itself, at random for
the resamples of the bootstrap. Everything is computed for many rows at a time: scikit-learn, one
row after another, takes twenty seconds for what takes one here. Tests hold both against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

CALIBRATION_BINS = 15
_FALSE_POSITIVE_LIMITS = {"recall_at_1_percent_fpr": 0.01, "recall_at_5_percent_fpr": 0.05}


def statistics(
    weights: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, *, ranked: Sequence[int]
) -> dict[Any, np.ndarray]:
    """Each metric for each row of weights; per-class ones under (class index, name)."""
    values: dict[Any, np.ndarray] = image_sums(weights, labels, probabilities)
    confusion = _confusion(weights, labels, probabilities)
    present = confusion.sum(axis=2)[0] > 0
    recalls = _divide(np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=2))
    values["balanced_accuracy"] = recalls[:, present].mean(axis=1)
    for index in range(probabilities.shape[1]):
        class_values = _class_counts(confusion, index)
        if index in ranked:
            class_values |= ranking(
                weights, positive=labels == index, scores=probabilities[:, index]
            )
        values |= {(index, name): value for name, value in class_values.items()}
    return values


def image_sums(
    weights: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics that are averages over images or over bins of a probability."""
    n_classes = probabilities.shape[1]
    total = weights.sum(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    own = probabilities[np.arange(len(labels)), labels]
    tiny = np.finfo(np.float64).eps
    squares = np.square(probabilities - np.eye(n_classes)[labels])
    # Two classes count each error once, as the binary Brier score does.
    squares = squares[:, 0] if n_classes == 2 else squares.sum(axis=1)
    # By confidence, a lean towards one of two classes would cancel out.
    two = n_classes == 2
    stated = probabilities[:, 0] if two else probabilities.max(axis=1)
    hits = (labels == 0).astype(np.float64) if two else correct
    bins = calibration_bins(stated)
    gaps = np.zeros((len(labels), CALIBRATION_BINS), dtype=weights.dtype)
    gaps[np.arange(len(labels)), bins] = stated - hits
    return {
        "loss": means(weights, -np.log(np.clip(own, tiny, 1.0))),
        "accuracy": means(weights, correct),
        "brier_score": means(weights, squares),
        "expected_calibration_error": np.abs(weights @ gaps).sum(axis=1) / total,
    }


def calibration_bins(stated: np.ndarray) -> np.ndarray:
    """The bin of each probability, from 0: equal widths, which hold their upper ends."""
    bins = np.ceil(stated * CALIBRATION_BINS).astype(int) - 1
    return np.clip(bins, 0, CALIBRATION_BINS - 1)


def _confusion(weights: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Weighted counts, shape (rows, true class, predicted class)."""
    n_classes = probabilities.shape[1]
    cells = np.zeros((len(labels), n_classes**2), dtype=weights.dtype)
    cells[np.arange(len(labels)), labels * n_classes + probabilities.argmax(axis=1)] = 1
    return (weights @ cells).reshape(-1, n_classes, n_classes)


def _class_counts(confusion: np.ndarray, index: int) -> dict[str, np.ndarray]:
    true_positives = confusion[:, index, index]
    actual = confusion[:, index, :].sum(axis=1)
    predicted = confusion[:, :, index].sum(axis=1)
    negatives = confusion.sum(axis=(1, 2)) - actual
    recall = _divide(true_positives, actual)
    # Nothing predicted as the class counts as precision 0, as in scikit-learn.
    precision = np.nan_to_num(_divide(true_positives, predicted), nan=0.0)
    f1 = np.where(actual > 0, _divide(2 * true_positives, actual + predicted), np.nan)
    return {
        "precision": np.where(actual > 0, precision, np.nan),
        "recall": recall,
        "f1": f1,
        "false_positive_rate": _divide(predicted - true_positives, negatives),
    }


def ranking(
    weights: np.ndarray, *, positive: np.ndarray, scores: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics over all thresholds, of one class against the rest; NaN without both."""
    names = ("roc_auc", "average_precision", *_FALSE_POSITIVE_LIMITS)
    if positive.all() or not positive.any():
        return {name: np.full(len(weights), np.nan) for name in names}
    order = np.argsort(-scores, kind="stable")
    # Equal scores are one threshold, after the last of them.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    ordered = np.take(weights, order, axis=1)
    drawn = _at_thresholds(ordered, ends)
    ordered *= positive[order]
    true_positives = _at_thresholds(ordered, ends)
    false_positives = drawn - true_positives
    hits = np.diff(true_positives, prepend=0.0, axis=1)
    n_positive, n_negative = true_positives[:, -1], false_positives[:, -1]
    if _is_all_images(weights):
        roc_auc = np.array([roc_auc_score(positive, scores)])
        average_precision = np.array([average_precision_score(positive, scores)])
    else:
        alarms = np.diff(false_positives, prepend=0.0, axis=1)
        area = (alarms * (true_positives - hits / 2)).sum(axis=1)
        roc_auc = area / (n_positive * n_negative)
        hits *= true_positives / np.maximum(drawn, 1)
        average_precision = hits.sum(axis=1) / n_positive
    rows = np.arange(len(weights))
    values = {"roc_auc": roc_auc, "average_precision": average_precision}
    for name, limit in _FALSE_POSITIVE_LIMITS.items():
        # The last threshold within the limit; the product may round down where it is whole.
        allowed = np.floor(limit * n_negative * (1 + 1e-6))[:, None]
        within = np.count_nonzero(false_positives <= allowed, axis=1)
        recall = true_positives[rows, np.maximum(within, 1) - 1] / n_positive
        values[name] = np.where(within > 0, recall, 0.0)
    return values


def _at_thresholds(ordered: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sums of the weights up to each threshold, shape (rows, thresholds)."""
    cumulated = np.cumsum(ordered, axis=1)
    return cumulated if len(ends) == ordered.shape[1] else cumulated[:, ends]


def means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weighted mean of a value of each image, for each row of weights."""
    if _is_all_images(weights):
        return np.array([np.mean(values)])
    return weights @ values.astype(weights.dtype) / weights.sum(axis=1)


def _is_all_images(weights: np.ndarray) -> bool:
    """Whether this is the value itself: it is summed by the same functions as scikit-learn's."""
    return len(weights) == 1 and bool(np.all(weights == 1))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
