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
# Of each class: fewer sources of one class each are a confound, so many are collections.
_FEWEST_COLLECTIONS = 3


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
    columns = [rows.widths, rows.heights, rows.widths / rows.heights]
    names, sources = np.unique(rows.sources.astype(str), return_inverse=True)
    if not _are_collections(sources, rows.labels, n_sources=len(names)):
        columns.append(sources)
    features = np.column_stack(columns).astype(np.float64)
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


def _are_collections(sources: np.ndarray, labels: np.ndarray, *, n_sources: int) -> bool:
    """Whether every source is of one class, and each class has several of them.

    Such sources name the class by their making; no image shows which it came from.

    Args:
        sources: Index of each image's source, shape (n_images,).
        labels: Class of each image, shape (n_images,).
        n_sources: Number of sources.
    """
    pairs = np.unique(np.column_stack([sources, labels]), axis=0)
    return len(pairs) == n_sources and np.bincount(pairs[:, 1]).min() >= _FEWEST_COLLECTIONS
