"""Compute metrics with 95 % intervals from labels and probabilities, split by split.

Fake is the positive class of a model that tells Fake from Real; with other classes the metrics
of one class against the rest are averaged over the classes (macro). Definitions are
scikit-learn's. A metric that is not defined (the recall of a class without images) is left out.

`labels` are integer classes, shape (n_images,), and `probabilities` softmax outputs, shape
(n_images, n_classes), rows summing to 1. A row of `weights`, shape (n_rows, n_images), says how
often each image counts: all once for the value itself, at random for the resamples of the
bootstrap. Many rows are computed at a time: scikit-learn, one row after another, takes twenty
seconds for what takes one here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from sklearn.metrics import confusion_matrix

from real_vs_ai.core.config import SEED, positive_index
from real_vs_ai.core.intervals import Interval, share_interval
from real_vs_ai.verdicts.predictions import Predictions

# Enough for the second digit of a 95 % interval; see Efron & Tibshirani 1993.
RESAMPLES = 1000
# Small enough for the processor's cache, which doubles the speed.
_CHUNK_WEIGHTS = 500_000
CALIBRATION_BINS = 15
_FALSE_POSITIVE_LIMITS = {"recall_at_1_percent_fpr": 0.01, "recall_at_5_percent_fpr": 0.05}

# The splits that a report is about, the main one first.
REPORTED_SPLITS = ("test", "validation")

T = TypeVar("T")


def compute_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    class_names: Sequence[str],
    decided: np.ndarray | None = None,
) -> dict[str, Any]:
    """Every metric with its bootstrap interval.

    The images are drawn again within each class, so the intervals hold for this share of Fake
    and Real images.

    Args:
        decided: The verdict's class, -1 where it is Uncertain, shape (n_images,).

    Returns:
        "n", "counts" (images of each class), "confusion_matrix" (rows: true class), one
        {"value", "low", "high"} for each metric, and "per_class" with the same for each class.
    """
    n_classes = len(class_names)
    # Real against Fake ranks the same images the other way round.
    positive = positive_index(class_names)
    ranked = range(n_classes) if positive is None else [positive]
    values = bootstrap(
        lambda weights: statistics(weights, labels, probabilities, ranked=ranked), labels
    )
    overall, per_class = _by_class(values, ranked=ranked)
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(n_classes))
    return {
        "n": len(labels),
        "counts": dict(zip(class_names, confusion.sum(axis=1).tolist(), strict=True)),
        "confusion_matrix": confusion.tolist(),
        **intervals_of(overall),
        **({} if decided is None else count_verdicts(labels, decided)),
        "per_class": {name: intervals_of(per_class[i]) for i, name in enumerate(class_names)},
    }


def count_verdicts(labels: np.ndarray, decided: np.ndarray) -> dict[str, Interval]:
    """The shares of Uncertain verdicts and, where there are others, of wrong ones among these."""
    certain = decided >= 0
    shares = {
        "uncertain_share": share_interval(~certain),
        "error_when_certain": share_interval((decided != labels)[certain]),
    }
    return {name: share for name, share in shares.items() if share}


def mean_interval(values: np.ndarray, labels: np.ndarray) -> Interval:
    """The mean of a value of each image, with its interval over images like these.

    Args:
        values: Shape (n_images,), float. Of the difference between two models, or two versions of
            the images, the interval is a paired one.
        labels: See `bootstrap`.
    """
    return intervals_of(bootstrap(lambda drawn: {"": means(drawn, values)}, labels))[""]


def share_over_sources(
    labels: np.ndarray, decided: np.ndarray, sources: np.ndarray, class_names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The shares of wrong and of certain verdicts over sources that count alike.

    Returns:
        For each class: "class", "sources", the mean shares "certain" and "wrong" with 95 %
        bootstrap intervals over sources, and "wrong_95", which 95 % of them do not exceed.
    """
    rows = []
    for label, class_name in enumerate(class_names):
        own = labels == label
        _, which = np.unique(sources[own].astype(str), return_inverse=True)
        certain, wrong = decided[own] >= 0, (decided[own] >= 0) & (decided[own] != label)
        counts = np.bincount(which)
        shares = {
            name: np.bincount(which, weights=values) / counts
            for name, values in (("certain", certain), ("wrong", wrong))
        }
        row = {"class": class_name, "sources": len(counts)}
        alike = np.zeros(len(counts), np.int64)
        row |= {name: mean_interval(values, alike) for name, values in shares.items()}
        rows.append({**row, "wrong_95": float(np.percentile(shares["wrong"], 95))})
    return rows


def bootstrap(
    statistics: Callable[[np.ndarray], Mapping[T, np.ndarray]], labels: np.ndarray
) -> dict[T, np.ndarray]:
    """Values of some statistics, each followed by those of its resamples, shape (1 + RESAMPLES,).

    Args:
        statistics: Takes how often each image is drawn, shape (rows, n_images), and returns a
            value for each row. The first row is all ones.
        labels: The images are drawn again within each label, shape (n_images,), integers.
    """
    chunks = [statistics(w) for w in _draw_weights(labels)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _draw_weights(labels: np.ndarray) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(SEED)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    yield np.ones((1, len(labels)))
    rows = max(1, _CHUNK_WEIGHTS // len(labels))
    for start in range(0, RESAMPLES, rows):
        n_rows = min(rows, RESAMPLES - start)
        # Single precision holds these counts exactly, and intervals need no more digits.
        weights = np.empty((n_rows, len(labels)), dtype=np.float32)
        for positions in members:
            drawn = generator.integers(0, len(positions), (n_rows, len(positions)))
            drawn += np.arange(n_rows)[:, None] * len(positions)
            counts = np.bincount(drawn.ravel(), minlength=drawn.size)
            weights[:, positions] = counts.reshape(drawn.shape)
        yield weights


def _by_class(
    values: dict[Any, np.ndarray], *, ranked: Sequence[int]
) -> tuple[dict[str, np.ndarray], dict[int, dict[str, np.ndarray]]]:
    """Take per-class rows out, and put their mean over the ranked classes in their place.

    A binary model ranks Fake alone, so that its precision is Fake's.
    """
    overall = {name: rows for name, rows in values.items() if isinstance(name, str)}
    per_class: dict[int, dict[str, np.ndarray]] = {}
    for key, rows in values.items():
        if not isinstance(key, str):
            per_class.setdefault(key[0], {})[key[1]] = rows
    for name in dict.fromkeys(name for index in ranked for name in per_class[index]):
        columns = [per_class[index][name] for index in ranked]
        defined = [column for column in columns if not np.isnan(column[0])]
        overall[name] = np.mean(defined or columns, axis=0)
    return overall, per_class


def intervals_of(values: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """Values with their 95 % intervals; undefined metrics are left out.

    Args:
        values: As `bootstrap` gives them.
    """
    intervals = {}
    for name, rows in values.items():
        if np.isnan(rows[0]):
            continue
        if name == "expected_calibration_error":
            rows = _without_bias(rows)
        resampled = rows[1:][~np.isnan(rows[1:])]
        low, high = np.percentile(resampled, [2.5, 97.5]) if len(resampled) else (rows[0], rows[0])
        intervals[name] = {"value": float(rows[0]), "low": float(low), "high": float(high)}
    return intervals


def _without_bias(rows: np.ndarray) -> np.ndarray:
    """A value and its resamples, less the bias that resampling shows (Efron & Tibshirani 1993).

    Gaps that chance opens between stated and observed shares add up and never cancel: the value is
    too high, and each resample is too high once more.
    """
    bias = rows[1:].mean() - rows[0] if len(rows) > 1 else 0.0
    return np.maximum(0.0, np.concatenate([rows[:1] - bias, rows[1:] - 2 * bias]))


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
    alarms = np.diff(false_positives, prepend=0.0, axis=1)
    area = (alarms * (true_positives - hits / 2)).sum(axis=1)
    hits *= true_positives / np.maximum(drawn, 1)
    rows = np.arange(len(weights))
    values = {
        "roc_auc": area / (n_positive * n_negative),
        "average_precision": hits.sum(axis=1) / n_positive,
    }
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
    if len(weights) == 1 and np.all(weights == 1):
        # The value itself is summed by the same functions as scikit-learn's.
        return np.array([np.mean(values)])
    return weights @ values.astype(weights.dtype) / weights.sum(axis=1)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


# The shorter side, in pixels, parts thumbnails, web pictures and photographs.
_SIZE_BOUNDS = (64, 256, 1024)
_SIZE_GROUPS = ("below 64 px", "64 to 255 px", "256 to 1023 px", "1024 px and more")


def split_metrics(rows: Predictions) -> dict[str, Any]:
    """All metrics of one split: overall, per class, per source and per image size.

    "reasons" counts the codes of the verdicts' first reasons.
    """
    calibrated, decided = rows.calibrated, rows.decided

    def compute(chosen: np.ndarray) -> dict[str, Any]:
        return compute_metrics(
            rows.labels[chosen],
            calibrated[chosen],
            class_names=rows.class_names,
            decided=decided[chosen],
        )

    def compute_groups(groups: np.ndarray) -> dict[str, Any]:
        found = {}
        for name in sorted(set(groups)):
            chosen = groups == name
            found[name] = dict(overall) if chosen.all() else compute(chosen)
            # Classes within groups would be many numbers of few images.
            found[name].pop("per_class")
        return found

    overall = compute(np.ones(len(rows), dtype=bool))
    # What calibration changes.
    names = ("loss", "brier_score", "expected_calibration_error")
    sums = bootstrap(lambda w: image_sums(w, rows.labels, rows.probabilities), rows.labels)
    return {
        **overall,
        "reasons": dict(sorted(Counter(filter(None, rows.reasons.tolist())).items())),
        "uncalibrated": intervals_of({name: sums[name] for name in names}),
        "per_source": compute_groups(np.where(rows.sources == "", "unknown", rows.sources)),
        "per_size": compute_groups(size_groups(rows.widths, rows.heights)),
    }


def size_groups(widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """The size group of each image, by its shorter side: "64 to 255 px", …"""
    shorter = np.minimum(widths, heights)
    return np.array(_SIZE_GROUPS, dtype=object)[np.searchsorted(_SIZE_BOUNDS, shorter, "right")]
