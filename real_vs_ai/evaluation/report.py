"""Evaluate a model on labelled images and write its report folder.

Training ends with this; ModelEvaluation.py does it again for any model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from sklearn.metrics import classification_report

from real_vs_ai.config import POSITIVE_CLASS, SEED
from real_vs_ai.confounds import measure_confounds, size_traits, source_trait
from real_vs_ai.dataset.labelled_images import LabelledImages, fingerprint_images
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.calibration import NEW_SOURCE, calibrate_metadata, explain_missed_targets
from real_vs_ai.evaluation.curves import (
    draw_precision_recall,
    draw_reliability,
    draw_roc,
    draw_scores,
    rank_classes,
)
from real_vs_ai.evaluation.figures import (
    draw_class_distribution,
    draw_confusion_matrix,
    draw_history,
    draw_mistakes,
)
from real_vs_ai.evaluation.judging import JudgedSplit, judge_split
from real_vs_ai.evaluation.metrics import REPORTED_SPLITS, share_over_sources, split_metrics
from real_vs_ai.evaluation.model_card import model_card
from real_vs_ai.evaluation.network_picture import draw_network
from real_vs_ai.files import read_json, write_json, write_text
from real_vs_ai.model_file import ModelMetadata, write_metadata
from real_vs_ai.predictions import (
    Predictions,
    join_predictions,
    read_predictions,
    write_predictions,
)
from real_vs_ai.runs import RunFolder, read_history
from real_vs_ai.serving.detector import Detector
from real_vs_ai.verdict import thresholds_of

if TYPE_CHECKING:
    import keras

# Share of certain verdicts that may be wrong; ModelEvaluation.py --target-error changes it.
TARGET_ERROR = 0.05


@dataclass(frozen=True)
class Evaluation:
    """What there is to report of a model.

    Attributes:
        judged: Every split but train.
        predictions: The verdicts on them.
        metadata: With the calibration that the metrics are for.
    """

    judged: Mapping[str, JudgedSplit]
    predictions: Predictions
    metadata: ModelMetadata
    metrics: dict[str, Any]

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
) -> Evaluation:
    """Judge every split but train, and compute all metrics.

    Args:
        images: By split; "train" is only counted.
        left_out: By split, (path, reason) of files that are not among the images: unreadable ones.
        target_error: Fits temperature and thresholds on validation, see `calibrate_metadata`; None,
            or no validation images of both classes, keeps what the metadata say.
        by_source: Whether the target error is that of a new source.

    Raises:
        InputError: The model has other classes or outputs.
    """
    judged = {
        split: judge_split(detector, some, split=split, workers=workers)
        for split, some in images.items()
        if split != "train"
    }
    metadata, thresholds = detector.metadata, None
    if target_error and "validation" in judged:
        rows = judged["validation"].rows(metadata)
        metadata, thresholds = _calibrate(rows, metadata, target_error, by_source=by_source)
    predictions = join_predictions([part.rows(metadata) for part in judged.values()])
    metrics = _all_metrics(judged, predictions, images, metadata, thresholds, left_out=left_out)
    return Evaluation(judged, predictions, metadata, metrics)


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
        **{split: split_metrics(rows) for split, rows in own.items()},
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


def _calibrate(
    rows: Predictions, metadata: ModelMetadata, target_error: float, *, by_source: bool
) -> tuple[ModelMetadata, Mapping[str, Any] | None]:
    """Metadata with temperature and thresholds fitted on validation, and what is known of these."""
    if len(np.unique(rows.labels)) < 2:
        return metadata, None
    fitted, found = calibrate_metadata(
        metadata,
        rows.labels,
        rows.probabilities,
        target_error=target_error,
        sources=rows.sources if by_source else None,
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
    sources = rows.sources.astype(str)
    traits = {**size_traits(rows.widths, rows.heights), **source_trait(sources, labels)}
    found = measure_confounds(
        traits, labels, seed=SEED, advice="The metrics may say nothing about other images."
    )
    return found and {
        "balanced_accuracy": found.accuracy,
        "chance": found.chance,
        "warning": found.warning,
    }


def store_in_model(model_path: Path, evaluation: Evaluation) -> str:
    """Write calibration and test metrics into the model file, so that it serves alone; say so."""
    # Keras reads more formats than HDF5.
    if not h5py.is_hdf5(model_path):
        return f"Calibration and metrics are not stored in {model_path}: it is no HDF5 file."
    test = evaluation.metrics.get("test", {})
    # Sources and sizes stay in metrics.json: the model file needs what a verdict's reader needs.
    kept = {name: value for name, value in test.items() if not name.startswith("per_")}
    write_metadata(model_path, dataclasses.replace(evaluation.metadata, metrics=kept))
    return f"Calibration and metrics are stored in {model_path}."


def write_evaluation(run: RunFolder, evaluation: Evaluation, *, model: keras.Model) -> None:
    """Write the report's files into a folder, `metrics.json` last."""
    write_predictions(run.predictions, evaluation.predictions)
    if missing := draw_network(model, run):
        evaluation.metrics["notes"].append(missing)
    main = evaluation.main
    rows = evaluation.predictions.of_split(main.split)
    draw_mistakes(
        rows,
        main.images,
        metadata=evaluation.metadata,
        model=model,
        path=run.figures / "mistakes.png",
    )
    _write_from_numbers(run, evaluation.predictions, evaluation.metrics)
    write_json(run.metrics, evaluation.metrics)


def redraw_report(run: RunFolder) -> list[Path]:
    """Draw the figures of a report again from its `predictions.csv` and `metrics.json`.

    Raises:
        FileNotFoundError: The folder has no report.
        InputError: Its files are damaged or do not belong together.
    """
    if not run.metrics.is_file():
        raise FileNotFoundError(
            f"Expected a report's {run.metrics.name} in {run.path}, found none. "
            "Run ModelEvaluation.py without --redraw."
        )
    metrics = read_json(run.metrics)
    predictions = read_predictions(run.predictions)
    predictions = dataclasses.replace(predictions, temperature=metrics["temperature"])
    counted = {split: metrics.get(split, {}).get("n") for split in predictions.split_names}
    found = {split: len(predictions.of_split(split)) for split in counted}
    if counted != found or tuple(metrics["class_names"]) != predictions.class_names:
        raise InputError(
            f"Expected {run.predictions.name} and {run.metrics.name} in {run.path} to belong "
            f"together, found {found} rows but {counted} counted. Run ModelEvaluation.py again."
        )
    return _write_from_numbers(run, predictions, metrics)


def _write_from_numbers(run: RunFolder, predictions: Predictions, metrics: Mapping) -> list[Path]:
    config = read_json(run.config) if run.config.is_file() else {}
    drawn = draw_report(run.figures, predictions, metrics)
    if history := read_history(run.history):
        drawn.append(run.figures / "history.png")
        keep = config.get("options", {}).get("keep", "best")
        draw_history(history, keep=keep, path=drawn[-1])
    texts = {
        run.classification_report: _classification_report(predictions, metrics),
        run.model_card: model_card(run.name, metrics, config),
    }
    for path, text in texts.items():
        write_text(path, text)
    return drawn


def draw_report(folder: Path, predictions: Predictions, metrics: Mapping) -> list[Path]:
    """Draw what the predictions allow.

    Args:
        folder: Takes the PNG files.
        metrics: The contents of `metrics.json` for the predictions.

    Returns:
        The files.
    """
    drawn: list[Path] = []

    def place(name: str) -> Path:
        drawn.append(folder / f"{name}.png")
        return drawn[-1]

    names = [name for name in REPORTED_SPLITS if name in predictions.split_names]
    splits = {name: predictions.of_split(name) for name in names}
    # The report is about the first one; the figures of the others have their names.
    main = names[0]
    if metrics.get("images"):
        draw_class_distribution(
            metrics["images"], metrics.get("sources", {}), path=place("class_distribution")
        )
    for split, rows in splits.items():
        name = "confusion_matrix" if split == main else f"confusion_matrix_{split}"
        draw_confusion_matrix(rows, split=split, path=place(name))
    if ranked := rank_classes(splits, metrics):
        draw_roc(ranked, path=place("roc"))
        draw_precision_recall(ranked, path=place("precision_recall"))
    draw_scores(splits[main], thresholds=metrics["thresholds"], path=place("scores"))
    calibrated = metrics.get("calibrated", False)
    draw_reliability(splits[main], metrics[main], calibrated=calibrated, path=place("reliability"))
    return drawn


def _classification_report(predictions: Predictions, metrics: Mapping) -> str:
    """scikit-learn's report for each split, at the class of highest probability."""
    texts = []
    for split in predictions.split_names:
        rows = predictions.of_split(split)
        table = classification_report(
            rows.labels,
            rows.probabilities.argmax(axis=1),
            labels=range(len(rows.class_names)),
            target_names=list(rows.class_names),
            digits=4,
            zero_division=0,
        )
        accuracy = metrics[split]["accuracy"]
        texts.append(
            f"{split}: {len(rows):,} images, accuracy {accuracy['value']:.4f} "
            f"(95 % interval {accuracy['low']:.4f} to {accuracy['high']:.4f})\n\n{table}"
        )
    return "\n".join(texts)


def _describe_model(metadata: ModelMetadata, thresholds: dict | None) -> dict[str, Any]:
    return {
        "class_names": list(metadata.class_names),
        "positive_class": None if metadata.positive_index is None else POSITIVE_CLASS,
        "backbone": metadata.backbone,
        "image_size": metadata.image_size,
        "input": metadata.model_input.stored(),
        "temperature": metadata.temperature,
        "calibrated": metadata.calibrated,
        "thresholds": thresholds or thresholds_of(metadata),
    }
