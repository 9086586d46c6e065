"""Measure how a model's verdicts hold when images are perturbed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from real_vs_ai.config import SEED
from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.judging import judge_versions
from real_vs_ai.evaluation.metrics import Table, accuracy_difference, compute_metrics, interval_text
from real_vs_ai.model_file import calibrate
from real_vs_ai.perturbations import PERTURBATIONS, PERTURBATIONS_VERSION
from real_vs_ai.serving.detector import Detector

UNCHANGED = "unchanged"
# Drawn evenly over the classes: enough to tell a change of one percentage point.
MOST_IMAGES = 1000
# A table of twenty changes has room for these metrics.
_KEPT = ("accuracy", "recall", "false_positive_rate", "roc_auc")


def measure_robustness(
    detector: Detector, images: LabelledImages, *, split: str, workers: int
) -> dict[str, Any]:
    """Judge the same images as they are and after each of `PERTURBATIONS`.

    Args:
        images: The files; unreadable ones are passed over, and of many some are drawn.

    Returns:
        "split", "n", "perturbations" (see `describe_perturbations`), and "rows": for each change
        its name, metrics with intervals, "difference" (of its accuracy from the unchanged images',
        with a paired interval), "flips" (verdicts turned from one class to another) and
        "uncertain" (verdicts given up).
    """
    chosen = images.take(images.draw(MOST_IMAGES))
    versions = {UNCHANGED: None, **{change.name: change for change in PERTURBATIONS}}
    judged = list(judge_versions(detector, chosen, versions, workers=workers))
    if not judged:
        raise InputError(f"Expected images that can be read in {images.root}, found none.")
    metadata = detector.metadata
    labels = chosen.labels[[position for position, _ in judged]].astype(np.int64)
    rows, before, right_before = [], None, None
    for index, name in enumerate(versions):
        verdicts = [of_image[index] for _, of_image in judged]
        outputs = np.array([verdict.uncalibrated for verdict in verdicts])
        probabilities = calibrate(outputs, temperature=metadata.temperature)
        given = np.array([verdict.label for verdict in verdicts], dtype=object)
        right = probabilities.argmax(axis=1) == labels
        if before is None:
            before, right_before = given, right
        numbers = compute_metrics(
            labels, probabilities, class_names=metadata.class_names, seed=SEED
        )
        certain = np.isin(given.astype(str), metadata.class_names)
        certain_before = np.isin(before.astype(str), metadata.class_names)
        rows.append(
            {
                "name": name,
                **{key: numbers[key] for key in _KEPT if key in numbers},
                "difference": accuracy_difference(labels, right, right_before, seed=SEED),
                "flips": int(np.sum(certain & certain_before & (given != before))),
                "uncertain": int(np.sum(~certain)),
            }
        )
    return {
        "split": split,
        "n": len(labels),
        "perturbations": describe_perturbations(),
        "rows": rows,
    }


def describe_perturbations() -> dict[str, Any]:
    """What a stored table must have been measured with to hold still."""
    return {"version": PERTURBATIONS_VERSION, "names": [p.name for p in PERTURBATIONS]}


def robustness_table(robustness: Mapping) -> Table:
    """Accuracy and verdicts after each change."""
    rows = [
        [row["name"], interval_text(row["accuracy"]), row["flips"], row["uncertain"]]
        for row in robustness["rows"]
    ]
    return ["change", "accuracy", "verdicts flipped", "Uncertain"], rows
