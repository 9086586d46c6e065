"""Judge labelled images of another kind than the training images, and count the mistakes.

found = measure_other_images(scorer, metadata=metadata, check=check,
                             folder=Path("photographs"), workers=2, max_memory_bytes=2**30)
found[0]["certain_wrong"]     # {"value": 0.02, "low": …, "high": …}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from real_vs_ai.dataset.decoded_images import DecodedImages, decode_splits, find_splits
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.out_of_distribution import find_out_of_distribution
from real_vs_ai.evaluation.scorer import Scorer, predict_images
from real_vs_ai.model_file import ModelMetadata, calibrate
from real_vs_ai.out_of_distribution import OutOfDistributionCheck
from real_vs_ai.reporting import format_table
from real_vs_ai.verdict import decide

OTHER_IMAGES_TITLES = {
    "out_of_distribution": "out-of-distribution",
    "uncertain": "Uncertain for another reason",
    "certain_right": "certain and right",
    "certain_wrong": "certain and wrong",
    "certain_wrong_unchecked": "certain and wrong without the check",
    "accuracy_unchecked": "accuracy without the check",
}


def measure_other_images(
    scorer: Scorer,
    *,
    metadata: ModelMetadata,
    check: OutOfDistributionCheck | None,
    folder: Path,
    workers: int,
    max_memory_bytes: int,
) -> list[dict[str, Any]]:
    """Judge labelled images as the app would, and count how often it would be wrong and certain.

    Args:
        scorer: Of the model, with the features that the check compares.
        metadata: Of the model, with its calibration and the training images' sizes.
        check: The model file's out-of-distribution check, or None.
        folder: Holds a folder for each class, or splits of such; training images are left out.
        workers: Processes that decode.
        max_memory_bytes: Decoded images beyond this are kept on disk.

    Returns:
        For each split "data" (its name), "n" images, and the shares that `OTHER_IMAGES_TITLES`
        names, each with Wilson's 95 % interval. The first four add up to 1.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds other classes, or nothing that can be read.
    """
    splits = decode_splits(
        find_splits(folder), metadata=metadata, workers=workers, max_memory_bytes=max_memory_bytes
    )
    judged = {split: decoded for split, decoded in splits.items() if split != "train"}
    for decoded in judged.values():
        if not len(decoded):
            raise InputError(f"Expected images that can be read in {folder}, found none.")
    name = folder.resolve().name
    return [
        {
            "data": name if len(judged) == 1 else f"{name}, {split}",
            **_count(scorer, decoded, split=split, metadata=metadata, check=check),
        }
        for split, decoded in judged.items()
    ]


def other_images_table(other_images: Sequence[dict[str, Any]]) -> str:
    """The shares as a table for the terminal."""
    rows = [
        [part["data"], title, *(part[key][bound] for bound in ("value", "low", "high"))]
        for part in other_images
        for key, title in OTHER_IMAGES_TITLES.items()
    ]
    images = ", ".join(f"{part['n']:,} of {part['data']}" for part in other_images)
    return format_table(
        ["data", "share of the images", "value", "low", "high"],
        rows,
        title=f"Images of another kind: {images}",
    )


def _count(
    scorer: Scorer,
    decoded: DecodedImages,
    *,
    split: str,
    metadata: ModelMetadata,
    check: OutOfDistributionCheck | None,
) -> dict[str, Any]:
    found = find_out_of_distribution(
        scorer, metadata=metadata, check=check, decoded=decoded, positions=np.arange(len(decoded))
    )
    predictions = predict_images(scorer, decoded, split=split, model_input=metadata.model_input)
    calibrated = calibrate(predictions.probabilities, temperature=metadata.temperature)
    decided, labels = decide(calibrated, metadata), predictions.labels
    certain = decided >= 0
    shares = {
        "out_of_distribution": found,
        "uncertain": ~found & ~certain,
        "certain_right": ~found & certain & (decided == labels),
        "certain_wrong": ~found & certain & (decided != labels),
        "certain_wrong_unchecked": certain & (decided != labels),
        "accuracy_unchecked": calibrated.argmax(axis=1) == labels,
    }
    return {"n": len(labels), **{key: _share(which) for key, which in shares.items()}}


def _share(which: np.ndarray) -> dict[str, float]:
    found = binomtest(int(which.sum()), len(which))
    interval = found.proportion_ci(method="wilson")
    return {
        "value": float(found.statistic),
        "low": float(interval.low),
        "high": float(interval.high),
    }
