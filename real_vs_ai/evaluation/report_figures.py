"""Draw every figure of a report from predictions and metrics, without a model.

What is drawn is decided here; how it looks, in figures.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from real_vs_ai.config import POSITIVE_CLASS, UNCERTAIN
from real_vs_ai.evaluation import figures
from real_vs_ai.evaluation.figures import Curve, ReliabilityBins
from real_vs_ai.evaluation.metric_sums import CALIBRATION_BINS
from real_vs_ai.evaluation.metrics import REPORTED_SPLITS, is_binary, share_interval
from real_vs_ai.files import read_json
from real_vs_ai.model_file import calibrate
from real_vs_ai.predictions import Predictions
from real_vs_ai.runs import RunFolder
from real_vs_ai.verdict import UNDECIDED, uncertain_range

_HISTOGRAM_EDGES = np.linspace(0, 1, 41)
# More classes than colours make curves that nobody can tell apart.
_MOST_CURVES = 7


def draw_report(
    run: RunFolder,
    predictions: Predictions,
    metrics: Mapping,
    *,
    history: Mapping[str, Sequence] | None,
) -> list[Path]:
    """Draw what the data allow.

    Args:
        metrics: The contents of `metrics.json` for the predictions.

    Returns:
        The PNG files, in the order of a report.
    """
    folder, split = run.figures, main_split(predictions)
    rows, drawn = predictions.of_split(split), []

    def place(name: str) -> Path:
        drawn.append(folder / name)
        return drawn[-1]

    if history and len(history["epoch"]):
        draw_history_file(history, keep=_kept(run), path=place("history.png"))
    if metrics.get("images"):
        path = place("class_distribution.png")
        figures.draw_class_distribution(metrics["images"], path=path)
    drawn.extend(_draw_confusion(folder, predictions, metrics, split))
    drawn.extend(_draw_curves(folder, predictions, metrics, split))
    _draw_reliability(rows, metrics, split=split, path=place("reliability.png"))
    _draw_scores(rows, metrics, path=place("scores.png"))
    _draw_risk_coverage(predictions, metrics, path=place("risk_coverage.png"))
    if metrics.get("robustness"):
        draw_robustness_file(metrics["robustness"], path=place("robustness.png"))
    return drawn


def main_split(predictions: Predictions) -> str:
    """The split that a report is about: test where it is there."""
    names = predictions.split_names
    return next((name for name in REPORTED_SPLITS if name in names), names[0])


def draw_history_file(history: Mapping[str, Sequence], *, keep: str, path: Path) -> None:
    """Draw the training curves and mark the epoch whose weights were kept.

    Args:
        keep: "last", or "best" for the epoch with the lowest validation loss, as training has it.
    """
    figures.draw_history(history, kept_epoch=kept_epoch(history, keep=keep), path=path)


def kept_epoch(history: Mapping[str, Sequence], *, keep: str) -> float | None:
    """The epoch whose weights were kept; None without validation losses to choose it by."""
    losses = np.array(history.get("val_loss", ()), dtype=float)
    if keep == "last":
        return history["epoch"][-1]
    return history["epoch"][int(np.nanargmin(losses))] if np.isfinite(losses).any() else None


def _kept(run: RunFolder) -> str:
    """Which epoch's weights training kept; runs of other origin have no settings."""
    config = read_json(run.config) if run.config.is_file() else {}
    return config.get("options", {}).get("keep", "best")


def draw_robustness_file(robustness: Mapping, *, path: Path) -> None:
    """Draw what `robustness.measure_robustness` found."""
    rows, n = robustness["rows"], robustness["n"]
    figures.draw_robustness(
        rows,
        shares={
            "turned to another class": [row["flips"] / n for row in rows],
            "Uncertain": [row["uncertain"] / n for row in rows],
        },
        title=f"{n:,} {robustness['split']} images",
        path=path,
    )


def _draw_confusion(
    folder: Path, predictions: Predictions, metrics: Mapping, main: str
) -> list[Path]:
    drawn = []
    for split in (name for name in REPORTED_SPLITS if name in metrics):
        suffix = "" if split == main else f"_{split}"
        drawn.append(folder / f"confusion_matrix{suffix}.png")
        matrix = verdict_matrix(predictions.of_split(split))
        figures.draw_confusion_matrix(
            matrix,
            class_names=metrics["class_names"],
            verdicts=[*metrics["class_names"], UNCERTAIN],
            title=f"{split}: verdicts on {matrix.sum():,} images",
            path=drawn[-1],
        )
    return drawn


def verdict_matrix(rows: Predictions) -> np.ndarray:
    """How many images of each class (rows) get each verdict (columns, the last one Uncertain)."""
    decided, classes = rows.decided, len(rows.class_names)
    columns = np.where(decided == UNDECIDED, classes, decided)
    return confusion_matrix(rows.labels, columns, labels=range(classes + 1))[:-1]


def _draw_curves(folder: Path, predictions: Predictions, metrics: Mapping, main: str) -> list[Path]:
    names = predictions.class_names
    if is_binary(names):
        index = names.index(POSITIVE_CLASS)
        wanted = [(split, index, split) for split in REPORTED_SPLITS]
        positive = f"positive class {POSITIVE_CLASS}"
    else:
        wanted = [(main, i, name) for i, name in enumerate(names[:_MOST_CURVES])]
        positive = f"each class against the rest, {main}"
    roc, precision_recall, prevalence = [], [], None
    for split, index, name in wanted:
        rows = predictions.of_split(split)
        is_positive = rows.labels == index
        if not is_positive.any() or is_positive.all():
            continue
        temperature = metrics["temperature"]
        scores = calibrate(rows.probabilities, temperature=temperature)[:, index]
        part = metrics[split]["per_class"][names[index]]
        n = len(rows)
        alarms, found, _ = roc_curve(is_positive, scores)
        roc.append(Curve(name, alarms, found, part.get("roc_auc"), n))
        precision, recall, _ = precision_recall_curve(is_positive, scores, drop_intermediate=True)
        # Recall rising, from left to right.
        summary = part.get("average_precision")
        precision_recall.append(Curve(name, recall[::-1], precision[::-1], summary, n))
        if is_binary(names) and prevalence is None:
            prevalence = float(is_positive.mean())
    if not roc:
        return []
    paths = [folder / "roc.png", folder / "precision_recall.png"]
    figures.draw_roc(roc, positive=positive, path=paths[0])
    figures.draw_precision_recall(
        precision_recall, positive=positive, prevalence=prevalence, path=paths[1]
    )
    return paths


def _draw_reliability(rows: Predictions, metrics: Mapping, *, split: str, path: Path) -> None:
    after = calibrate(rows.probabilities, temperature=metrics["temperature"])
    measured = metrics[split]
    parts = [("as trained", rows.probabilities, measured["uncalibrated"])]
    if metrics.get("calibrated"):
        parts.append((f"calibrated, T = {metrics['temperature']:.2f}", after, measured))
    bins = []
    for name, probabilities, numbers in parts:
        if is_binary(rows.class_names):
            index = rows.class_names.index(POSITIVE_CLASS)
            hits, stated = rows.labels == index, probabilities[:, index]
        else:
            hits = probabilities.argmax(axis=1) == rows.labels
            stated = probabilities.max(axis=1)
        error = numbers["expected_calibration_error"]["value"]
        bins.append(reliability_bins(hits, stated, name=name, error=error))
    binary = is_binary(rows.class_names)
    figures.draw_reliability(
        bins,
        stated=f"stated probability of {POSITIVE_CLASS}" if binary else "stated confidence",
        observed=f"observed share of {POSITIVE_CLASS}" if binary else "observed accuracy",
        path=path,
    )


def _draw_risk_coverage(predictions: Predictions, metrics: Mapping, *, path: Path) -> None:
    curves, chosen = [], {}
    for split in (name for name in REPORTED_SPLITS if name in predictions.split_names):
        rows = predictions.of_split(split)
        calibrated = calibrate(rows.probabilities, temperature=metrics["temperature"])
        points = risk_coverage_points(rows.labels, calibrated)
        curves.append(Curve(split, *points, None, len(rows)))
        part = metrics[split]
        if "error_when_certain" in part:
            coverage = 1 - part["uncertain_share"]["value"]
            chosen[split] = (coverage, part["error_when_certain"]["value"])
    figures.draw_risk_coverage(curves, chosen=chosen, path=path)


def _draw_scores(rows: Predictions, metrics: Mapping, *, path: Path) -> None:
    calibrated = calibrate(rows.probabilities, temperature=metrics["temperature"])
    if is_binary(rows.class_names):
        scores = calibrated[:, rows.class_names.index(POSITIVE_CLASS)]
        axis = f"probability of {POSITIVE_CLASS}, calibrated"
    else:
        scores = calibrated.max(axis=1)
        axis = "confidence of the predicted class, calibrated"
    bounds = uncertain_range(metrics["thresholds"])
    counts = {
        name: np.histogram(scores[rows.labels == i], bins=_HISTOGRAM_EDGES)[0]
        for i, name in enumerate(rows.class_names)
    }
    figures.draw_score_histogram(
        counts, edges=_HISTOGRAM_EDGES, bounds=bounds, axis=axis, path=path
    )


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
    """
    index = np.clip(np.ceil(stated * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    counts = np.bincount(index, minlength=CALIBRATION_BINS)
    filled = counts > 0
    sums = np.bincount(index, weights=stated, minlength=CALIBRATION_BINS)
    observed = np.bincount(index, weights=hits, minlength=CALIBRATION_BINS)
    share = observed[filled] / counts[filled]
    low, high = np.array(
        [
            [interval["low"], interval["high"]]
            for k, n in zip(observed[filled], counts[filled], strict=True)
            if (interval := share_interval(np.arange(n) < k))
        ]
    ).T
    return ReliabilityBins(
        name=name,
        stated=sums[filled] / counts[filled],
        observed=share,
        counts=counts[filled],
        error=error,
        margins=np.maximum(0, [share - low, high - share]),
    )
