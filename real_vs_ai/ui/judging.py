"""Decide the verdict shown: the detector's, with the user's thresholds, if it is stable.

judged = judge_upload(upload, variants=(), model=model_metadata, chosen=chosen_metadata)
judged.verdict.label
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from real_vs_ai.config import SEED
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.perturbations import PERTURBATIONS
from real_vs_ai.ui.checking import CheckedUpload
from real_vs_ai.verdict import Verdict, apply_stability, apply_thresholds


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

    def judge(verdict: Verdict) -> Verdict:
        return verdict if chosen == model else apply_thresholds(verdict, chosen)

    own = judge(upload.check.verdict)
    judged = tuple(Variant(variant.name, judge(variant.verdict)) for variant in variants)
    verdict, flipped_by = apply_stability(own, [(v.name, v.verdict) for v in judged])
    return JudgedUpload(upload, verdict, own, judged, flipped_by)
