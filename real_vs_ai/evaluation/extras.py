"""Measure what a report holds on request: changed images, images of another kind, another model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from real_vs_ai.config import SEED
from real_vs_ai.dataset.decoded_images import find_splits
from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.by_collection import measure_collections
from real_vs_ai.evaluation.judging import JudgedSplit, judge_changed, judge_split
from real_vs_ai.evaluation.metrics import (
    accuracy_difference,
    compute_metrics,
    mcnemar_test,
    share_interval,
)
from real_vs_ai.evaluation.report import Evaluation
from real_vs_ai.evaluation.tables import (
    Table,
    collections_table,
    comparison_table,
    other_images_table,
    robustness_table,
)
from real_vs_ai.model_file import calibrate
from real_vs_ai.perturbations import PERTURBATIONS, PERTURBATIONS_VERSION
from real_vs_ai.predictions import Predictions
from real_vs_ai.reporting import format_table
from real_vs_ai.serving.detector import Detector
from real_vs_ai.verdict import decide

# Drawn evenly over the classes: enough to tell a change of one percentage point.
MOST_IMAGES = 1000
# A table of twenty changes has room for these metrics.
_KEPT = ("accuracy", "recall", "false_positive_rate", "roc_auc")
# A stored table holds for these; with others its verdicts would be different ones.
_CALIBRATION = ("temperature", "thresholds", "data", "input")


def measure_robustness(detector: Detector, judged: JudgedSplit, *, workers: int) -> dict[str, Any]:
    """Judge the same images as they are and after each of `PERTURBATIONS`.

    Args:
        judged: The images, of which some are drawn where they are many, and the verdicts on them.

    Returns:
        "split", "n", "perturbations" (see `describe_perturbations`), and "rows": for each change
        its name, metrics with intervals, "difference" (of its accuracy from the unchanged images',
        with a paired interval), "flips" (verdicts turned from one class to another) and
        "uncertain" (verdicts given up).
    """
    chosen, metadata = judged.images.draw(MOST_IMAGES), detector.metadata
    images, unchanged = judged.images.take(chosen), judged.rows(metadata).take(chosen)
    changed = judge_changed(detector, images, PERTURBATIONS, split=judged.split, workers=workers)
    names = ["unchanged", *(change.name for change in PERTURBATIONS)]
    labels, before = unchanged.labels, unchanged.decided
    right_before = unchanged.is_right
    rows = []
    for name, answers in zip(names, [unchanged, *changed], strict=True):
        probabilities = calibrate(answers.probabilities, temperature=metadata.temperature)
        numbers = compute_metrics(
            labels, probabilities, class_names=metadata.class_names, seed=SEED
        )
        given = answers.decided
        rows.append(
            {
                "name": name,
                **{key: numbers[key] for key in _KEPT if key in numbers},
                "difference": accuracy_difference(
                    labels, answers.is_right, right_before, seed=SEED
                ),
                "flips": int(np.sum((given >= 0) & (before >= 0) & (given != before))),
                "uncertain": int(np.sum(given < 0)),
            }
        )
    return {
        "split": judged.split,
        "n": len(labels),
        "perturbations": describe_perturbations(),
        "rows": rows,
    }


def describe_perturbations() -> dict[str, Any]:
    """What a stored table must have been measured with to hold still."""
    return {"version": PERTURBATIONS_VERSION, "names": [p.name for p in PERTURBATIONS]}


def measure_other_images(detector: Detector, folder: Path, *, workers: int) -> list[dict[str, Any]]:
    """Count how often the model would be wrong and certain on images of another kind.

    Args:
        folder: Holds a folder for each class, or splits of such; training images are left out.

    Returns:
        For each split "data" (its name), "n" images, and six shares with exact 95 % intervals:
        "out_of_distribution", "uncertain", "certain_right" and "certain_wrong", which add up to 1;
        "certain_wrong_unchecked" (by the thresholds alone) and "accuracy_unchecked".

    Raises:
        FileNotFoundError: There is no such folder.
        InputError: It holds other classes, or nothing that can be read.
    """
    metadata = detector.metadata
    folders = {split: path for split, path in find_splits(folder).items() if split != "train"}
    name, counted = folder.resolve().name, []
    for split, path in folders.items():
        images = list_labelled_images(path, class_names=metadata.class_names)
        rows = judge_split(detector, images, split=split, workers=workers).rows(metadata)
        calibrated = calibrate(rows.probabilities, temperature=metadata.temperature)
        decided, labels, unlike = rows.decided, rows.labels, rows.out_of_distribution
        alone = decide(calibrated, metadata)
        shares = {
            "out_of_distribution": unlike,
            "uncertain": ~unlike & (decided < 0),
            "certain_right": decided == labels,
            "certain_wrong": (decided >= 0) & (decided != labels),
            "certain_wrong_unchecked": (alone >= 0) & (alone != labels),
            "accuracy_unchecked": rows.is_right,
        }
        data = name if len(folders) == 1 else f"{name}, {split}"
        exact = {share: share_interval(which) for share, which in shares.items()}
        counted.append({"data": data, "n": len(rows), **exact})
    return counted


def compare_models(
    predictions: Predictions, others: Sequence[Predictions], *, name: str
) -> dict[str, Any]:
    """Test whether two models err differently on the images that both could read.

    Args:
        others: Of the second model, one split each.

    Returns:
        For each split the accuracies' difference with its interval, and McNemar's test.
    """
    compared: dict[str, Any] = {"model": name}
    for second in others:
        (split,) = second.split_names
        first = predictions.of_split(split)
        if not np.array_equal(first.paths, second.paths):
            raise InputError(f"Expected predictions for the same {split} images of both models.")
        right = first.is_right, second.is_right
        compared[split] = {
            "n": len(first),
            "accuracy_difference": accuracy_difference(first.labels, *right, seed=SEED),
            **mcnemar_test(*right),
        }
    return compared


def add_extras(
    evaluation: Evaluation,
    detector: Detector,
    *,
    stored: Mapping[str, Any],
    robustness: bool,
    others: Sequence[Path],
    compared: Detector | None,
    workers: int,
) -> list[str]:
    """Add to the metrics what was asked for, and what an earlier report holds of it still.

    Args:
        stored: `metrics.json` of the earlier report, or {}.
        others: Folders of images of another kind.
        compared: Another model, of the same classes.

    Returns:
        Tables for the terminal.
    """
    metrics, main, told = evaluation.metrics, evaluation.main, []
    detector = detector.with_metadata(evaluation.metadata)

    def tell(title: str, table: Table) -> None:
        told.append(f"{format_table(*table, title=title)}\n")

    keep_extras(metrics, stored)
    if robustness:
        found = metrics["robustness"] = measure_robustness(detector, main, workers=workers)
        tell(f"Robustness: {found['n']:,} {main.split} images", robustness_table(found))
    if others:
        by_folder = (measure_other_images(detector, one, workers=workers) for one in others)
        found = metrics["other_images"] = [part for parts in by_folder for part in parts]
        images = ", ".join(f"{part['n']:,} of {part['data']}" for part in found)
        tell(f"Images of another kind: {images}", other_images_table(found))
    if compared:
        rows = [
            judge_split(compared, part.images, split=split, workers=workers).rows(compared.metadata)
            for split, part in evaluation.judged.items()
        ]
        found = compare_models(evaluation.predictions, rows, name=compared.name)
        metrics["comparison"] = found
        tell(f"Accuracy compared with {found['model']}", comparison_table(found))
    test, metadata = evaluation.judged.get("test"), evaluation.metadata
    if test and metadata.positive_index is not None and metadata.model_input.is_crops:
        found = measure_collections(detector, test, workers=workers)
        metrics["collections"] = [found]
        tell(f"By collection: {test.split}", collections_table(found))
    return told


def keep_extras(metrics: dict[str, Any], stored: Mapping[str, Any]) -> None:
    """Keep what an earlier report measured with the same calibration on the same data."""
    if any(stored.get(name) != metrics.get(name) for name in _CALIBRATION):
        return
    robustness = stored.get("robustness") or {}
    if robustness.get("perturbations") == describe_perturbations():
        metrics["robustness"] = robustness
    if stored.get("other_images"):
        metrics["other_images"] = stored["other_images"]
