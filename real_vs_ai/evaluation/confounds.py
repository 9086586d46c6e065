"""Sizes and sources of labelled images in, whether they give the labels away out.

    found = find_confound(rows)        # {"balanced_accuracy": 0.98, "chance": 0.5, "warning": "…"}

A model can learn such a difference in place of the class, and its metrics then say nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from real_vs_ai.config import SEED
from real_vs_ai.evaluation.predictions import Predictions

_FOLDS = 5
_FEWEST_IMAGES = 2 * _FOLDS
# Above chance by so much of what is left above it; smaller gains are the luck of small samples.
_NOTABLE_GAIN = 0.4


def find_confound(rows: Predictions) -> dict[str, Any] | None:
    """Guess the labels without looking at the pictures, cross-validated.

    Args:
        rows: Labelled images; their probabilities are not used.

    Returns:
        "balanced_accuracy" of a small decision tree on width, height, their ratio and the source,
        "chance", and "warning", a sentence or "". None with too few images to tell.
    """
    counts = np.bincount(rows.labels, minlength=len(rows.class_names))
    if counts.min() < _FEWEST_IMAGES:
        return None
    sources = np.unique(rows.sources.astype(str), return_inverse=True)[1]
    features = np.column_stack(
        [rows.widths, rows.heights, rows.widths / rows.heights, sources]
    ).astype(np.float64)
    tree = DecisionTreeClassifier(
        max_depth=4, min_samples_leaf=5, class_weight="balanced", random_state=SEED
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=SEED)
    guessed = cross_val_predict(tree, features, rows.labels, cv=folds)
    accuracy = float(balanced_accuracy_score(rows.labels, guessed))
    chance = 1 / len(rows.class_names)
    notable = accuracy > chance + _NOTABLE_GAIN * (1 - chance)
    warning = (
        f"On these images width, height and source alone tell the classes apart with a balanced "
        f"accuracy of {accuracy:.2f} (chance {chance:.2f}): the model may have learnt these in "
        "place of the classes, and the metrics may say nothing about other images."
    )
    return {"balanced_accuracy": accuracy, "chance": chance, "warning": warning if notable else ""}
