"""Turn a model's probabilities into a verdict: a label, numbers and reasons.

>>> import numpy as np
>>> from real_vs_ai.models.model_file import ModelMetadata
>>> metadata = ModelMetadata(("Fake", "Real"), 32, lower_threshold=0.3, upper_threshold=0.8)
>>> verdict = make_verdict(np.array([0.5, 0.5]), metadata)
>>> verdict.label, verdict.reasons[0].code.value
('Uncertain', 'between_thresholds')

The library, the command line, the app and the reports all use this module. It alone knows when an
answer is Uncertain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from real_vs_ai.core.config import POSITIVE_CLASS, UNCERTAIN
from real_vs_ai.core.messages import Message
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.verdicts.track_record import TrackRecord, read_track_record

UNDECIDED = -1


class ReasonCode(StrEnum):
    """Why a verdict is Uncertain, or must be read with care."""

    BETWEEN_THRESHOLDS = "between_thresholds"
    LOW_CONFIDENCE = "low_confidence"
    SIZE = "size"
    SHARPNESS = "sharpness"
    FEATURES = "features"
    PIXELS = "pixels"
    PLAIN = "plain"
    UNSTABLE = "unstable"
    NOT_CALIBRATED = "not_calibrated"


# Reasons that leave no probability to go by: no thresholds give such an image a verdict.
OUT_OF_DISTRIBUTION = frozenset(
    {
        ReasonCode.SIZE,
        ReasonCode.SHARPNESS,
        ReasonCode.FEATURES,
        ReasonCode.PIXELS,
        ReasonCode.PLAIN,
    }
)


@dataclass(frozen=True)
class Reason:
    """One reason behind a verdict.

    Attributes:
        code: For programs, which never look at the sentence.
    """

    code: ReasonCode
    sentence: str


@dataclass(frozen=True)
class CropScore:
    """What one crop of an image says.

    Attributes:
        window: Left, top, right and bottom, as shares of the image, 0 to 1.
        probabilities: Calibrated probability of every class, in the order of the model's classes.
    """

    window: tuple[float, float, float, float]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """What a model says about one image.

    Attributes:
        label: A class name ("Fake", "Real"), or "Uncertain".
        probability_fake: Calibrated, 0 to 1. None for out-of-distribution images, and for models
            of other classes than Fake and Real.
        confidence: Calibrated probability of the most probable class. None for out-of-distribution
            images.
        probabilities: Calibrated probability of every class, summing to 1. Empty for
            out-of-distribution images: calibration says nothing about them.
        reasons: Why the label is Uncertain; then what else to know about the numbers.
        model: Name of the model that judged the image, or "".
        crops: What each crop says, of models that judge crops; empty for out-of-distribution
            images.
        uncalibrated: The network's own probability of every class, in the order of the model's
            classes, for evaluation; it is there for out-of-distribution images too.
        record: How often the model that judged it finds, misses and accuses.
    """

    label: str
    probability_fake: float | None
    confidence: float | None
    probabilities: dict[str, float]
    reasons: tuple[Reason, ...] = ()
    model: str = ""
    crops: tuple[CropScore, ...] = ()
    uncalibrated: tuple[float, ...] = ()
    record: TrackRecord = field(default_factory=TrackRecord)

    @property
    def out_of_distribution(self) -> bool:
        """Whether the image is so different from the training images that no answer counts."""
        return self.out_of_distribution_reason is not None

    @property
    def out_of_distribution_reason(self) -> Reason | None:
        """Why the image is out-of-distribution; None for an in-distribution image."""
        return next((r for r in self.reasons if r.code in OUT_OF_DISTRIBUTION), None)


def make_verdict(
    probabilities: np.ndarray,
    metadata: ModelMetadata,
    *,
    out_of_distribution: Iterable[Reason | None] = (),
) -> Verdict:
    """Make the verdict on one image.

    Args:
        probabilities: Calibrated, shape (n_classes,).
        out_of_distribution: The result of each out-of-distribution check, None where the image
            passed. An image that fails one is Uncertain whatever its probabilities.
    """
    failed = next((reason for reason in out_of_distribution if reason is not None), None)
    if failed:
        return Verdict(UNCERTAIN, None, None, {}, reasons=(failed,))
    label = decide_label(probabilities, metadata)
    reasons = [_below_thresholds(metadata)] if label == UNCERTAIN else []
    if not metadata.calibrated:
        reasons.append(Reason(ReasonCode.NOT_CALIBRATED, Message("reason.not_calibrated")))
    positive = metadata.positive_index
    return Verdict(
        label=label,
        probability_fake=None if positive is None else float(probabilities[positive]),
        confidence=float(probabilities.max()),
        probabilities=dict(zip(metadata.class_names, map(float, probabilities), strict=True)),
        reasons=tuple(reasons),
        record=read_track_record(metadata.metrics),
    )


def recalibrate(verdict: Verdict, metadata: ModelMetadata) -> Verdict:
    """The verdict with the calibration and thresholds of this metadata."""
    if verdict.out_of_distribution:
        return verdict
    uncalibrated = np.array([verdict.uncalibrated])
    probabilities = metadata.calibrate(uncalibrated)[0]
    again = make_verdict(probabilities, metadata)
    return dataclasses.replace(again, model=verdict.model, uncalibrated=verdict.uncalibrated)


def without_thresholds(metadata: ModelMetadata) -> ModelMetadata:
    """The metadata with which every in-distribution image gets a certain verdict."""
    return dataclasses.replace(
        metadata, lower_threshold=0.5, upper_threshold=0.5, minimum_confidence=0.0
    )


def changes_class(verdict: Verdict, other: Verdict) -> bool:
    """Whether the verdict on a changed copy turns a certain one into another class."""
    return UNCERTAIN not in (verdict.label, other.label) and other.label != verdict.label


def apply_stability(verdict: Verdict, variants: Sequence[tuple[str, Verdict]]) -> Verdict:
    """Make a verdict Uncertain when a harmless change of the image turns it into another class.

    Args:
        variants: Each change, in words, and the verdict on the changed image.
    """
    turned = [change for change, other in variants if changes_class(verdict, other)]
    if not turned:
        return verdict
    sentence = Message("reason.unstable", changes=tuple(turned))
    reasons = (Reason(ReasonCode.UNSTABLE, sentence), *verdict.reasons)
    return dataclasses.replace(verdict, label=UNCERTAIN, reasons=reasons)


def decide(probabilities: np.ndarray, metadata: ModelMetadata) -> np.ndarray:
    """Decide for each in-distribution image which class it is, if any.

    Args:
        probabilities: Calibrated, shape (n_images, n_classes).

    Returns:
        Index of the class, UNDECIDED where the verdict is Uncertain, shape (n_images,), int64.
    """
    decided = np.full(len(probabilities), UNDECIDED, np.int64)
    positive = metadata.positive_index
    if positive is None:
        if metadata.minimum_confidence is not None:
            certain = probabilities.max(axis=1) >= metadata.minimum_confidence
            decided[certain] = probabilities.argmax(axis=1)[certain]
        return decided
    fake = probabilities[:, positive]
    if metadata.lower_threshold is not None:
        decided[fake <= metadata.lower_threshold] = 1 - positive
    # Last: with both thresholds at 0.5 nothing is Uncertain, and 0.5 itself is Fake.
    if metadata.upper_threshold is not None:
        decided[fake >= metadata.upper_threshold] = positive
    return decided


def decide_label(probabilities: np.ndarray, metadata: ModelMetadata) -> str:
    """The label for one image's calibrated probabilities, shape (n_classes,)."""
    index = int(decide(np.asarray(probabilities)[None], metadata)[0])
    return UNCERTAIN if index == UNDECIDED else metadata.class_names[index]


def thresholds_of(metadata: ModelMetadata) -> dict[str, float | None]:
    """The model's thresholds, as `metrics.json` and the reports state them; None: no threshold."""
    if metadata.positive_index is None:
        return {"minimum_confidence": metadata.minimum_confidence}
    return {"lower": metadata.lower_threshold, "upper": metadata.upper_threshold}


def uncertain_range(thresholds: Mapping[str, Any]) -> tuple[float, float]:
    """Between which scores a verdict is Uncertain.

    Args:
        thresholds: As `thresholds_of` states them.

    Returns:
        Two probabilities of Fake; for models of other classes 0 and the smallest confidence. Where
        there is no threshold, the range ends at 0 or 1.
    """
    low = thresholds.get("lower")
    high = thresholds.get("minimum_confidence", thresholds.get("upper"))
    return (0.0 if low is None else low), (1.0 if high is None else high)


def describe_thresholds(thresholds: Mapping[str, Any]) -> str:
    """Say in a sentence without its full stop when a verdict is Uncertain; see `thresholds_of`.

    >>> describe_thresholds({"lower": 0.2, "upper": 0.7})
    'A probability of Fake above 0.200 and below 0.700 is Uncertain'
    """
    low, high = uncertain_range(thresholds)
    if "minimum_confidence" in thresholds:
        if thresholds["minimum_confidence"] is None:
            return "Every verdict is Uncertain"
        return f"A confidence below {high:.3f} is Uncertain"
    limits = [
        *([f"above {low:.3f}"] if thresholds["lower"] is not None else []),
        *([f"below {high:.3f}"] if thresholds["upper"] is not None else []),
    ]
    if not limits:
        return "Every verdict is Uncertain"
    return f"A probability of {POSITIVE_CLASS} {' and '.join(limits)} is Uncertain"


def _below_thresholds(metadata: ModelMetadata) -> Reason:
    if metadata.positive_index is None:
        return Reason(ReasonCode.LOW_CONFIDENCE, Message("reason.low_confidence"))
    return Reason(ReasonCode.BETWEEN_THRESHOLDS, Message("reason.between_thresholds"))
