"""Set out a report's numbers as tables, for the model card and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from real_vs_ai.evaluation.metrics import REPORTED_SPLITS

# Headers and rows.
Table = tuple[list[str], list[list[Any]]]

# In the order of every table.
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "Average precision",
    "false_positive_rate": "False-positive rate",
    "recall_at_1_percent_fpr": "Recall at 1 % false positives",
    "recall_at_5_percent_fpr": "Recall at 5 % false positives",
    "loss": "Loss (cross-entropy)",
    "brier_score": "Brier score",
    "expected_calibration_error": "Expected calibration error (debiased)",
    "uncertain_share": "Share of Uncertain verdicts",
    "error_when_certain": "Error of certain verdicts",
}
_OTHER_TITLES = {
    "out_of_distribution": "out-of-distribution",
    "uncertain": "Uncertain for another reason",
    "certain_right": "certain and right",
    "certain_wrong": "certain and wrong",
    "certain_wrong_unchecked": "certain and wrong by the thresholds alone",
    "accuracy_unchecked": "accuracy at the class of highest probability",
}
_SUMMARY_TITLES = (
    "pooled ROC AUC",
    "mean ROC AUC",
    "balanced accuracy, forced",
    "coverage",
    "certain and wrong",
    "worst real source: wrong among certain",
    "worst generator: ROC AUC",
)


def results_table(metrics: Mapping) -> Table:
    """Headers and rows: every metric of each split with its interval."""
    splits = [split for split in REPORTED_SPLITS if split in metrics]
    rows = [
        [title, *(interval_text(metrics[split].get(name)) for split in splits)]
        for name, title in METRIC_TITLES.items()
        if any(name in metrics[split] for split in splits)
    ]
    return ["metric", *(f"{split} (n = {metrics[split]['n']:,})" for split in splits)], rows


def robustness_table(robustness: Mapping) -> Table:
    """Accuracy and verdicts after each change."""
    rows = [
        [row["name"], interval_text(row["accuracy"]), row["flips"], row["uncertain"]]
        for row in robustness["rows"]
    ]
    return ["change", "accuracy", "verdicts flipped", "Uncertain"], rows


def other_images_table(found: Sequence[Mapping]) -> Table:
    """The shares of each data set."""
    rows = [
        [title, *(interval_text(part[share]) for part in found)]
        for share, title in _OTHER_TITLES.items()
    ]
    return ["share of the images", *(f"{p['data']} (n = {p['n']:,})" for p in found)], rows


def comparison_table(compared: Mapping) -> Table:
    """How two models differ on the same images."""
    rows = [
        [
            split,
            part["n"],
            interval_text(part["accuracy_difference"]),
            part["only_first"],
            part["only_second"],
            f"{part['p_value']:.3g}",
        ]
        for split, part in compared.items()
        if split != "model"
    ]
    right = ["only this model right", "only the other right"]
    return ["split", "images", "accuracy difference", *right, "p (McNemar)"], rows


def collections_table(part: Mapping) -> Table:
    """What a release is judged by, for each version of a split's images."""

    def name_of(entry: Mapping | None, shown: Callable[[Mapping], str]) -> str:
        return f"{entry['name']}: {shown(entry)}" if entry else "none"

    rows = []
    for name, version in part["versions"].items():
        found = version["overall"]
        rows.append(
            [
                name,
                interval_text(found.get("pooled_auc")),
                "not defined" if found["auc"] is None else f"{found['auc']:.3f}",
                f"{found['balanced_accuracy']:.3f}",
                percent_text(found["coverage"]),
                percent_text(found["certain_wrong"]),
                name_of(found["worst_real"], percent_text),
                name_of(found["worst_generator"], lambda entry: f"{entry['value']:.3f}"),
            ]
        )
    return ["version", *_SUMMARY_TITLES], rows


def precision_table(found: Sequence[Mapping]) -> Table:
    """What each precision changes; benchmarks/bench_precision.py measures it."""
    rows = [
        [
            row["precision"],
            f"{row['images']} (n = {row['n']:,})",
            *(_accuracy_text(row[name]) for name in ("accuracy_f32", "accuracy")),
            f"{row['largest_difference']:.4f}",
            row["flipped"],
            row["uncertain_changed"],
        ]
        for row in found
    ]
    headers = ["precision", "images", "accuracy in f32", "accuracy", "largest difference"]
    return [*headers, "verdicts flipped", "to or from Uncertain"], rows


def _accuracy_text(accuracy: float | None) -> str:
    return "no labels" if accuracy is None else f"{accuracy:.4f}"


def interval_text(entry: Mapping[str, float] | None, *, digits: int = 4) -> str:
    """{"value": 0.95, "low": 0.94, "high": 0.96} → "0.9500 (0.9400 to 0.9600)"."""
    if not entry:
        return "not defined"
    value, low, high = (f"{entry[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def percent_text(entry: Mapping[str, Any] | None) -> str:
    """{"value": 0.95, "low": 0.94, "high": 0.96} → "95.0 % (94.0 to 96.0)"."""
    if not entry:
        return "none"
    return f"{100 * entry['value']:.1f} % ({100 * entry['low']:.1f} to {100 * entry['high']:.1f})"
