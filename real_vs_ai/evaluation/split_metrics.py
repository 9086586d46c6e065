"""The predictions of one split in, its part of `metrics.json` out.

numbers = split_metrics(predictions.of_split("test"), metadata)
numbers["per_source"]["cifake"]["accuracy"]      # {"value": …, "low": …, "high": …}
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from real_vs_ai.config import SEED
from real_vs_ai.evaluation.metrics import compute_calibration_metrics, compute_metrics
from real_vs_ai.evaluation.predictions import Predictions
from real_vs_ai.model_file import ModelMetadata, calibrate
from real_vs_ai.verdict import decide

# Of the shorter side of an image, in pixels: thumbnails, web pictures, photographs.
_SIZE_BOUNDS = (64, 256, 1024)


def split_metrics(rows: Predictions, metadata: ModelMetadata) -> dict[str, Any]:
    """All metrics of one split: overall, per class, per source and per image size."""
    calibrated = calibrate(rows.probabilities, temperature=metadata.temperature)
    decided = decide(calibrated, metadata)

    def compute(chosen: np.ndarray) -> dict[str, Any]:
        return compute_metrics(
            rows.labels[chosen],
            calibrated[chosen],
            class_names=metadata.class_names,
            seed=SEED,
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
    return {
        **overall,
        "uncalibrated": compute_calibration_metrics(rows.labels, rows.probabilities, seed=SEED),
        "per_source": compute_groups(np.where(rows.sources == "", "unknown", rows.sources)),
        "per_size": compute_groups(size_groups(rows.widths, rows.heights)),
    }


def size_groups(widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """The size group of each image, by its shorter side: "64 to 255 px", …"""
    first, last = _SIZE_BOUNDS[0], _SIZE_BOUNDS[-1]
    between = itertools.pairwise(_SIZE_BOUNDS)
    names = [
        f"below {first} px",
        *(f"{low} to {high - 1} px" for low, high in between),
        f"{last} px and more",
    ]
    shorter = np.minimum(widths, heights)
    return np.array(names, dtype=object)[np.searchsorted(_SIZE_BOUNDS, shorter, side="right")]
