"""The verdict that is shown: the detector's, with the user's thresholds, if it holds.

judged = judge_upload(upload, variants=(), model=model_metadata, chosen=chosen_metadata)
judged.verdict.label
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from real_vs_ai.config import SEED, UNCERTAIN
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.perturbations import PERTURBATIONS
from real_vs_ai.serving.detector import Verdict, make_verdict
from real_vs_ai.ui.checking import CheckedUpload


@dataclass(frozen=True)
class Variant:
    """One changed copy of an image.

    Attributes:
        name: The change, for people: "reducing to half".
        verdict: The detector's verdict on the copy.
    """

    name: str
    verdict: Verdict


def judge_variants(
    pixels: np.ndarray, *, predict_batch: Callable[[list[np.ndarray]], list[Verdict]]
) -> tuple[Variant, ...]:
    """Change an image in the ways that the app tries, and judge each copy.

    Args:
        pixels: Upright, shape (height, width, 3), uint8.
        predict_batch: The detector.
    """
    variants = []
    # One copy at a time: a dozen copies of a large photograph would fill the memory.
    for perturbation in PERTURBATIONS:
        if perturbation.phrase:
            (verdict,) = predict_batch([perturbation.apply(pixels, seed=SEED)])
            variants.append(Variant(perturbation.phrase, verdict))
    return tuple(variants)


@dataclass(frozen=True)
class JudgedUpload:
    """An uploaded file with the verdict to show.

    Attributes:
        upload: The file and its check.
        verdict: The verdict to show; None when the image cannot be read.
        own: The verdict on the image itself, before the treated copies were asked.
        variants: The treated copies, if they were asked, with the same thresholds.
        flipped_by: The treatments that turn the verdict into another class.
    """

    upload: CheckedUpload
    verdict: Verdict | None
    own: Verdict | None
    variants: tuple[Variant, ...] = ()
    flipped_by: tuple[str, ...] = ()


def judge_upload(
    upload: CheckedUpload,
    *,
    variants: Sequence[Variant],
    model: ModelMetadata,
    chosen: ModelMetadata,
) -> JudgedUpload:
    """Apply thresholds and stability to one checked file.

    Args:
        upload: The file and its check.
        variants: Verdicts on treated copies, or none when they were not asked.
        model: The metadata that the detector decided with.
        chosen: The same with the thresholds that the user chose.
    """
    if upload.check.verdict is None:
        return JudgedUpload(upload, verdict=None, own=None)
    own = judge_again(upload.check.verdict, model=model, chosen=chosen)
    rejudged = tuple(
        Variant(v.name, judge_again(v.verdict, model=model, chosen=chosen)) for v in variants
    )
    flipped_by = tuple(v.name for v in rejudged if _is_flip(own.label, v.verdict.label))
    verdict = own
    if flipped_by:
        reason = f"The verdict does not hold: it flips after {', '.join(flipped_by)}."
        verdict = dataclasses.replace(own, label=UNCERTAIN, reasons=(*own.reasons, reason))
    return JudgedUpload(upload, verdict, own, rejudged, flipped_by)


def judge_again(verdict: Verdict, *, model: ModelMetadata, chosen: ModelMetadata) -> Verdict:
    """The verdict with other thresholds and the same probabilities.

    An image unlike the training data stays Uncertain at any threshold.
    """
    if chosen == model:
        return verdict
    probabilities = np.array([verdict.probabilities[name] for name in model.class_names])
    return make_verdict(probabilities, chosen, domain=verdict.domain)


def _is_flip(label: str, other: str) -> bool:
    return UNCERTAIN not in (label, other) and label != other
