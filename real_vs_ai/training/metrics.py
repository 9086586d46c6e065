"""Labels and probabilities in, numbers with 95 % intervals out; no model, no files.

    numbers = compute_metrics(labels, probabilities, class_names=("Fake", "Real"), seed=42)
    numbers["accuracy"]          # {"value": 0.951, "low": 0.947, "high": 0.955}

Fake is the positive class of a model that tells Fake from Real; with other classes the metrics
of one class against the rest are averaged over the classes (macro). Definitions are
scikit-learn's. A metric that is not defined (the recall of a class without images) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from real_vs_ai.config import POSITIVE_CLASS

CALIBRATION_BINS = 15
# Enough for the second digit of a 95 % interval; see Efron & Tibshirani 1993.
RESAMPLES = 1000
# Per-class metrics; a binary model's own are those of Fake.
_FALSE_POSITIVE_LIMITS = {"recall_at_1_percent_fpr": 0.01, "recall_at_5_percent_fpr": 0.05}
_CHUNK_WEIGHTS = 4_000_000

Interval = dict[str, float]


def compute_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    class_names: Sequence[str],
    seed: int,
    decided: np.ndarray | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Every metric with its bootstrap interval.

    The images are drawn again within each class, so the intervals hold for this share of Fake
    and Real images.

    Args:
        labels: Integer class of each image, shape (n_images,).
        probabilities: Softmax outputs, shape (n_images, n_classes), rows summing to 1.
        class_names: In the order of the probabilities.
        seed: Of the resampling.
        decided: The verdict's class, -1 where it is Uncertain, shape (n_images,).
        resamples: How often the images are drawn again.

    Returns:
        "n", "counts" (images of each class), "confusion_matrix" (rows: true class), one
        {"value", "low", "high"} for each metric, and "per_class" with the same for each class.
    """
    labels = np.asarray(labels, dtype=np.int64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if not len(labels):
        raise ValueError("Expected at least one image to compute metrics, found none.")
    n_classes = len(class_names)
    positive = class_names.index(POSITIVE_CLASS) if is_binary(class_names) else None
    # Real against Fake ranks the same images the other way round.
    ranked = range(n_classes) if positive is None else (positive,)
    chunks = [
        _statistics(weights, labels, probabilities, decided=decided, ranked=ranked)
        for weights in _bootstrap_weights(labels, resamples=resamples, seed=seed)
    ]
    values = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    per_class = {name: values.pop(name) for name in list(values) if isinstance(name, tuple)}
    for name in dict.fromkeys(name for _, name in per_class):
        columns = [per_class[index, name] for index in ranked if (index, name) in per_class]
        values[name] = _mean_of_defined(columns)
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    return {
        "n": len(labels),
        "counts": dict(zip(class_names, confusion.sum(axis=1).tolist(), strict=True)),
        "confusion_matrix": confusion.tolist(),
        **_intervals(values),
        "per_class": {
            class_name: _intervals(
                {name: v for (index, name), v in per_class.items() if index == i}
            )
            for i, class_name in enumerate(class_names)
        },
    }


def is_binary(class_names: Sequence[str]) -> bool:
    """Whether the classes are Fake and one other, so that Fake is the positive class."""
    return len(class_names) == 2 and POSITIVE_CLASS in class_names


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over 15 equal-width bins (Guo et al. 2017).

    Args:
        labels: Integer class of each image, shape (n_images,).
        probabilities: Softmax outputs, shape (n_images, n_classes), rows summing to 1.
    """
    weights = np.ones((1, len(labels)))
    return float(_image_sums(weights, labels, probabilities)["expected_calibration_error"][0])


def mcnemar_test(first_correct: np.ndarray, second_correct: np.ndarray) -> dict[str, float]:
    """Whether two models err differently on the same images (exact test, McNemar 1947).

    Args:
        first_correct: Whether the first model is right, shape (n_images,), bool.
        second_correct: The same for the second model, on the same images.

    Returns:
        Counts of images that only one of them has right, and the two-sided p-value.
    """
    only_first = int(np.sum(first_correct & ~second_correct))
    only_second = int(np.sum(~first_correct & second_correct))
    disagreements = only_first + only_second
    p_value = binomtest(only_first, disagreements).pvalue if disagreements else 1.0
    return {"only_first": only_first, "only_second": only_second, "p_value": float(p_value)}


def accuracy_difference(
    labels: np.ndarray, first_correct: np.ndarray, second_correct: np.ndarray, *, seed: int
) -> Interval:
    """How much more often the first model is right, with its interval over the same images."""
    difference = first_correct.astype(np.float64) - second_correct
    rows = [
        _means(weights, difference)
        for weights in _bootstrap_weights(labels, resamples=RESAMPLES, seed=seed)
    ]
    return _intervals({"difference": np.concatenate(rows)})["difference"]


def _bootstrap_weights(labels: np.ndarray, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn, shape (rows, n_images); the first row is all ones."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    yield np.ones((1, len(labels)))
    rows = max(1, _CHUNK_WEIGHTS // len(labels))
    for start in range(0, resamples, rows):
        n_rows = min(rows, resamples - start)
        # Single precision holds these counts exactly, and intervals need no more digits.
        weights = np.empty((n_rows, len(labels)), dtype=np.float32)
        for positions in members:
            drawn = generator.integers(0, len(positions), (n_rows, len(positions)))
            drawn += np.arange(n_rows)[:, None] * len(positions)
            counts = np.bincount(drawn.ravel(), minlength=drawn.size)
            weights[:, positions] = counts.reshape(drawn.shape)
        yield weights


def _statistics(
    weights: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    decided: np.ndarray | None,
    ranked: Sequence[int],
) -> dict[Any, np.ndarray]:
    """Each metric for each row of weights; per-class ones under (class index, name)."""
    values: dict[Any, np.ndarray] = _image_sums(weights, labels, probabilities)
    if decided is not None:
        values |= _verdict_sums(weights, labels, decided)
    confusion = _confusion(weights, labels, probabilities)
    present = confusion.sum(axis=2)[0] > 0
    recalls = _divide(np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=2))
    values["balanced_accuracy"] = recalls[:, present].mean(axis=1)
    for index in range(probabilities.shape[1]):
        class_values = _class_counts(confusion, index)
        if index in ranked:
            class_values |= _ranking(
                weights, positive=labels == index, scores=probabilities[:, index]
            )
        values |= {(index, name): value for name, value in class_values.items()}
    return values


def _image_sums(
    weights: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics that are averages over images or over bins of confidence."""
    n_classes = probabilities.shape[1]
    total = weights.sum(axis=1)
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    own = probabilities[np.arange(len(labels)), labels]
    tiny = np.finfo(np.float64).eps
    squares = np.square(probabilities - np.eye(n_classes)[labels])
    # Two classes count each error once, as the binary Brier score does.
    squares = squares[:, 0] if n_classes == 2 else squares.sum(axis=1)
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.zeros((len(labels), CALIBRATION_BINS))
    gaps[np.arange(len(labels)), bins] = confidence - correct
    return {
        "loss": _means(weights, -np.log(np.clip(own, tiny, 1.0))),
        "accuracy": _means(weights, correct),
        "brier_score": _means(weights, squares),
        "expected_calibration_error": np.abs(weights @ gaps).sum(axis=1) / total,
    }


def _verdict_sums(
    weights: np.ndarray, labels: np.ndarray, decided: np.ndarray
) -> dict[str, np.ndarray]:
    certain = decided >= 0
    wrong = certain & (decided != labels)
    certain_weight = weights @ certain.astype(np.float64)
    return {
        "uncertain_share": 1.0 - certain_weight / weights.sum(axis=1),
        "error_when_certain": _divide(weights @ wrong.astype(np.float64), certain_weight),
    }


def _confusion(weights: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Weighted counts, shape (rows, true class, predicted class)."""
    n_classes = probabilities.shape[1]
    cells = np.zeros((len(labels), n_classes**2))
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


def _ranking(
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
    drawn = np.cumsum(ordered, axis=1)[:, ends]
    ordered *= positive[order]
    true_positives = np.cumsum(ordered, axis=1)[:, ends]
    false_positives = drawn - true_positives
    recall = true_positives / true_positives[:, -1:]
    false_positive_rate = false_positives / false_positives[:, -1:]
    precision = np.nan_to_num(_divide(true_positives, true_positives + false_positives), nan=0.0)
    roc_auc = np.trapezoid(_from_zero(recall), _from_zero(false_positive_rate), axis=1)
    average_precision = np.sum(np.diff(recall, prepend=0.0, axis=1) * precision, axis=1)
    if _is_all_images(weights):
        roc_auc = np.array([roc_auc_score(positive, scores)])
        average_precision = np.array([average_precision_score(positive, scores)])
    return {
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        **{
            name: np.max(np.where(false_positive_rate <= limit, recall, 0.0), axis=1)
            for name, limit in _FALSE_POSITIVE_LIMITS.items()
        },
    }


def _means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weighted mean of a value of each image, for each row of weights."""
    if _is_all_images(weights):
        return np.array([np.mean(values)])
    return weights @ values / weights.sum(axis=1)


def _is_all_images(weights: np.ndarray) -> bool:
    """Whether this is the value itself: it is summed by the same functions as scikit-learn's."""
    return len(weights) == 1 and bool(np.all(weights == 1))


def _from_zero(curve: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((len(curve), 1)), curve], axis=1)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _mean_of_defined(columns: Sequence[np.ndarray]) -> np.ndarray:
    defined = [column for column in columns if not np.isnan(column[0])]
    return np.mean(defined, axis=0) if defined else np.full_like(columns[0], np.nan)


def _intervals(values: dict[str, np.ndarray]) -> dict[str, Interval]:
    """The first row is the value, the others its resamples; undefined metrics are left out."""
    intervals = {}
    for name, rows in values.items():
        if np.isnan(rows[0]):
            continue
        resampled = rows[1:][~np.isnan(rows[1:])]
        low, high = np.percentile(resampled, [2.5, 97.5]) if len(resampled) else (rows[0], rows[0])
        intervals[name] = {"value": float(rows[0]), "low": float(low), "high": float(high)}
    return intervals
