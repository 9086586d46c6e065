"""Count the verdicts on labelled images unlike those that a model learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from real_vs_ai.dataset.decoded_images import find_splits
from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.evaluation.judging import judge_split
from real_vs_ai.evaluation.metrics import Table, interval_text, share_interval
from real_vs_ai.model_file import calibrate
from real_vs_ai.predictions import Predictions
from real_vs_ai.serving.detector import Detector
from real_vs_ai.verdict import decide

_TITLES = {
    "out_of_distribution": "out-of-distribution",
    "uncertain": "Uncertain for another reason",
    "certain_right": "certain and right",
    "certain_wrong": "certain and wrong",
    "certain_wrong_unchecked": "certain and wrong by the thresholds alone",
    "accuracy_unchecked": "accuracy at the class of highest probability",
}


def measure_other_images(detector: Detector, folder: Path, *, workers: int) -> list[dict[str, Any]]:
    """Count how often the model would be wrong and certain.

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
    folders = {split: path for split, path in find_splits(folder).items() if split != "train"}
    name, counted = folder.resolve().name, []
    for split, path in folders.items():
        images = list_labelled_images(path, class_names=detector.metadata.class_names)
        judged = judge_split(detector, images, split=split, workers=workers)
        rows = judged.rows(detector.metadata)
        data = name if len(folders) == 1 else f"{name}, {split}"
        counted.append({"data": data, "n": len(rows), **_count_verdicts(rows, detector)})
    return counted


def _count_verdicts(rows: Predictions, detector: Detector) -> dict[str, Any]:
    metadata = detector.metadata
    calibrated = calibrate(rows.probabilities, temperature=metadata.temperature)
    decided, labels, unlike = rows.decided, rows.labels, rows.out_of_distribution
    alone = decide(calibrated, metadata)
    shares = {
        "out_of_distribution": unlike,
        "uncertain": ~unlike & (decided < 0),
        "certain_right": decided == labels,
        "certain_wrong": (decided >= 0) & (decided != labels),
        "certain_wrong_unchecked": (alone >= 0) & (alone != labels),
        "accuracy_unchecked": calibrated.argmax(axis=1) == labels,
    }
    return {name: share_interval(which) for name, which in shares.items()}


def other_images_table(found: Sequence[Mapping]) -> Table:
    """The shares of each data set."""
    rows = [
        [title, *(interval_text(part[share]) for part in found)] for share, title in _TITLES.items()
    ]
    return ["share of the images", *(f"{p['data']} (n = {p['n']:,})" for p in found)], rows
