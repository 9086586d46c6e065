"""Estimate the effect of other thresholds from the model's validation images.

scores = read_validation_scores(run.predictions, metadata)
outcome = binary_outcome(scores, lower=0.3, upper=0.8)
outcome.false_alarms        # share of the real images that would be called AI-generated
"""

from __future__ import annotations

import contextlib
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from real_vs_ai.model_file import ModelMetadata, calibrate
from real_vs_ai.verdict import UNDECIDED, decide

_SPLIT = "validation"
_COLUMN_PREFIX = "probability_"


@dataclass(frozen=True)
class ValidationScores:
    """The model's calibrated answers on its validation images.

    Attributes:
        labels: Index of each image's true class, shape (n_images,).
        probabilities: Calibrated, shape (n_images, n_classes), rows summing to 1.
    """

    labels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class BinaryOutcome:
    """Shares, 0 to 1, of the validation images of one class that end in one way.

    Attributes:
        false_alarms: Real images called AI-generated.
        missed: AI-generated images called real.
        found: AI-generated images called AI-generated.
        uncertain: Images of either class left Uncertain.
        n_fake: How many AI-generated images were counted.
        n_real: How many real ones.
    """

    false_alarms: float
    missed: float
    found: float
    uncertain: float
    n_fake: int
    n_real: int


@dataclass(frozen=True)
class ConfidenceOutcome:
    """What a smallest confidence does, for models of any classes.

    Attributes:
        answered: Share of the validation images with a verdict, 0 to 1.
        right: Share of those verdicts that are right, 0 to 1; NaN when there are none.
        n_images: How many images were counted.
    """

    answered: float
    right: float
    n_images: int


def read_validation_scores(path: Path, metadata: ModelMetadata) -> ValidationScores | None:
    """Read the validation rows of a run's `predictions.csv`.

    Returns:
        None when there is no such file, or none of its rows can be used with this model.

    Raises:
        OSError: The file is there but cannot be read.
    """
    if not path.is_file():
        return None
    columns = [f"{_COLUMN_PREFIX}{name}" for name in metadata.class_names]
    labels, outputs = [], []
    # After a line that is no CSV nothing can be told apart any more: what came before is used.
    with (
        path.open(newline="", encoding="utf-8", errors="replace") as file,
        contextlib.suppress(csv.Error),
    ):
        for row in csv.DictReader(file):
            if row.get("split") != _SPLIT or row.get("label") not in metadata.class_names:
                continue
            try:
                outputs.append([float(row[column]) for column in columns])
            except (KeyError, TypeError, ValueError):
                # A run that is being written may end in half a line.
                continue
            labels.append(metadata.class_names.index(row["label"]))
    if not labels:
        return None
    probabilities = calibrate(np.array(outputs), temperature=metadata.temperature)
    return ValidationScores(np.array(labels), probabilities)


def binary_outcome(scores: ValidationScores, metadata: ModelMetadata) -> BinaryOutcome:
    """What the thresholds do to the validation images of a model that tells Fake from Real.

    Args:
        scores: The validation images.
        metadata: The model's, with the thresholds.
    """
    decided = decide(scores.probabilities, metadata)
    fake = scores.labels == metadata.positive_index
    called_fake = decided == metadata.positive_index
    uncertain = decided == UNDECIDED
    return BinaryOutcome(
        false_alarms=_share(called_fake[~fake]),
        missed=_share((~called_fake & ~uncertain)[fake]),
        found=_share(called_fake[fake]),
        uncertain=_share(uncertain),
        n_fake=int(fake.sum()),
        n_real=int((~fake).sum()),
    )


def confidence_outcome(scores: ValidationScores, metadata: ModelMetadata) -> ConfidenceOutcome:
    """What the smallest confidence does to the validation images of a model of other classes."""
    decided = decide(scores.probabilities, metadata)
    answered = decided != UNDECIDED
    right = decided == scores.labels
    return ConfidenceOutcome(_share(answered), _share(right[answered]), len(scores.labels))


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
