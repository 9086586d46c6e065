"""Evaluate a model on labelled images: its verdicts, its calibration, and all metrics.

Training ends with this; ModelEvaluation.py does it again for any model. `report_files.py` writes
the report's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from real_vs_ai.core.config import POSITIVE_CLASS, SEED
from real_vs_ai.dataset.confounds import measure_confounds, size_traits, source_trait
from real_vs_ai.dataset.labelled_images import LabelledImages, fingerprint_images
from real_vs_ai.evaluation.calibration import calibrate_metadata
from real_vs_ai.evaluation.conditions import CLEAN, describe_condition, find_weakest
from real_vs_ai.evaluation.judging import JudgedSplit, judge_split
from real_vs_ai.evaluation.metrics import REPORTED_SPLITS, share_over_sources, split_metrics
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.engines import Engine
from real_vs_ai.verdicts.predictions import Predictions, join_predictions
from real_vs_ai.verdicts.thresholds import NEW_SOURCE, explain_missed_targets
from real_vs_ai.verdicts.verdict import thresholds_of

# Share of certain verdicts that may be wrong; ModelEvaluation.py --target-error changes it.
TARGET_ERROR = 0.05


@dataclass(frozen=True)
class Evaluation:
    """What there is to report of a model.

    Attributes:
        judged: Every split but train.
        predictions: The verdicts on them.
        metadata: With the calibration that the metrics are for.
        engine: What computed the probabilities.
    """

    judged: Mapping[str, JudgedSplit]
    predictions: Predictions
    metadata: ModelMetadata
    metrics: dict[str, Any]
    engine: Engine

    @property
    def main(self) -> JudgedSplit:
        """The split that the report is about."""
        return next(self.judged[name] for name in REPORTED_SPLITS if name in self.judged)


def evaluate_model(
    detector: Detector,
    images: Mapping[str, LabelledImages],
    *,
    left_out: Mapping[str, Sequence[tuple[str, str]]],
    target_error: float | None,
    by_source: bool,
    workers: int,
    thresholds: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Judge every split but train, and compute all metrics.

    Args:
        images: By split; "train" is only counted.
        left_out: By split, (path, reason) of files that are not among the images: unreadable ones.
        target_error: Fits temperature and thresholds on validation, see `calibrate_metadata`; None,
            or no validation images of both classes, keeps what the metadata say.
        by_source: Whether the target error is that of a new source.
        thresholds: Without a target error, what an earlier report knows of the model's thresholds.

    Raises:
        InputError: The model has other classes or outputs.
    """
    judged = {
        split: judge_split(detector, some, split=split, workers=workers)
        for split, some in images.items()
        if split != "train"
    }
    metadata = detector.metadata
    if target_error and "validation" in judged:
        validation = judged["validation"]
        kinds = validation.makers if by_source else None
        rows = validation.rows(metadata)
        metadata, thresholds = _calibrate(rows, metadata, target_error, kinds=kinds)
    predictions = join_predictions([part.rows(metadata) for part in judged.values()])
    metrics = _all_metrics(judged, predictions, images, metadata, thresholds, left_out=left_out)
    return Evaluation(judged, predictions, metadata, metrics, detector.engine)


def _all_metrics(
    judged: Mapping[str, JudgedSplit],
    predictions: Predictions,
    images: Mapping[str, LabelledImages],
    metadata: ModelMetadata,
    thresholds: Mapping[str, Any] | None,
    *,
    left_out: Mapping[str, Sequence[tuple[str, str]]],
) -> dict[str, Any]:
    """The contents of `metrics.json`."""
    own = {split: predictions.of_split(split) for split in predictions.split_names}
    listed = {split: judged[split].images if split in judged else images[split] for split in images}
    unreadable = {
        split: [*left_out.get(split, ()), *(judged[split].unreadable if split in judged else ())]
        for split in images
    }
    metrics = {
        **_describe_model(metadata, thresholds),
        "images": {split: some.counts for split, some in listed.items()},
        "sources": {split: some.source_counts for split, some in listed.items()},
        "data": {
            split: {
                "folder": some.root.as_posix(),
                "fingerprint": fingerprint_images(some),
                "unreadable": [{"path": path, "reason": why} for path, why in unreadable[split]],
            }
            for split, some in listed.items()
        },
        **{split: _split_metrics(judged[split], rows) for split, rows in own.items()},
        "out_of_distribution": {
            split: {"n": len(rows), "share": float(rows.out_of_distribution.mean())}
            for split, rows in own.items()
        },
        "confound": find_confound(next(own[name] for name in REPORTED_SPLITS if name in own)),
        "notes": explain_missed_targets(thresholds),
    }
    if (thresholds or {}).get("rule") == NEW_SOURCE:
        metrics["over_sources"] = {
            split: share_over_sources(rows.labels, rows.decided, rows.sources, rows.class_names)
            for split, rows in own.items()
        }
    return metrics


def _split_metrics(judged: JudgedSplit, rows: Predictions) -> dict[str, Any]:
    """A split's metrics, and of Fake and Real the shares by class and the weakest groups."""
    metrics = split_metrics(rows)
    if clean := describe_condition(rows):
        metrics["conditions"] = {CLEAN: clean}
        metrics["weakest"] = find_weakest(rows, judged.makers)
    return metrics


def _calibrate(
    rows: Predictions, metadata: ModelMetadata, target_error: float, *, kinds: np.ndarray | None
) -> tuple[ModelMetadata, Mapping[str, Any] | None]:
    """Metadata with calibration and thresholds fitted on validation, and what is known of these.

    Args:
        kinds: What made each image, for thresholds of new sources; None for others.
    """
    by_source = kinds is not None
    if len(np.unique(rows.labels)) < 2:
        return metadata, None
    fitted, found = calibrate_metadata(
        metadata,
        rows.labels,
        rows.probabilities,
        target_error=target_error,
        sources=rows.sources if by_source else None,
        kinds=kinds,
        refused=rows.out_of_distribution,
    )
    return fitted, found | ({"rule": NEW_SOURCE} if by_source else {})


def find_confound(rows: Predictions) -> dict[str, Any] | None:
    """Whether sizes and sources alone give the labels away; the probabilities are not used.

    Returns:
        "balanced_accuracy" of the guess, "chance", and "warning", a sentence or "". None with too
        few images to tell.
    """
    labels = np.array(rows.class_names)[rows.labels]
    sources = rows.sources.astype(str).tolist()
    traits = {**size_traits(rows.widths, rows.heights), **source_trait(sources, labels)}
    found = measure_confounds(
        traits, labels, seed=SEED, advice="The metrics may say nothing about other images."
    )
    if found is None:
        return None
    return {"balanced_accuracy": found.accuracy, "chance": found.chance, "warning": found.warning}


def _describe_model(
    metadata: ModelMetadata, thresholds: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "class_names": list(metadata.class_names),
        "positive_class": None if metadata.positive_index is None else POSITIVE_CLASS,
        "backbone": metadata.backbone,
        "image_size": metadata.image_size,
        "input": metadata.model_input.stored(),
        "temperature": metadata.temperature,
        "offset": metadata.offset,
        "calibrated": metadata.calibrated,
        "thresholds": thresholds or thresholds_of(metadata),
    }
