"""Evaluate a model on labelled images and write its report folder.

Training ends with `write_report`; ModelEvaluation.py calls it again for any model.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import classification_report

from real_vs_ai.config import POSITIVE_CLASS, SEED
from real_vs_ai.confounds import measure_confounds, size_traits, source_trait
from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.dataset.labelled_images import fingerprint_images
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.calibration import calibrate_metadata, compare_rules, has_sources
from real_vs_ai.evaluation.metrics import split_metrics
from real_vs_ai.evaluation.model_card import write_model_card
from real_vs_ai.evaluation.out_of_distribution import MOST_IMAGES, share_out_of_distribution
from real_vs_ai.evaluation.report_figures import draw_report, main_split
from real_vs_ai.evaluation.scorer import Scorer, open_checked_scorer, predict_images
from real_vs_ai.files import read_json, write_json, write_text
from real_vs_ai.model_file import ModelMetadata, write_metadata
from real_vs_ai.predictions import (
    Predictions,
    concatenate,
    join_predictions,
    read_predictions,
    write_predictions,
)
from real_vs_ai.runs import RunFolder, read_history
from real_vs_ai.verdict import thresholds_of

if TYPE_CHECKING:
    import keras

# Share of certain verdicts that may be wrong; ModelEvaluation.py --target-error changes it.
TARGET_ERROR = 0.05
_TRAIN = "train"


@dataclass(frozen=True)
class Evaluation:
    """What there is to report of a model.

    Attributes:
        predictions: Of every split but train.
        metadata: With the calibration that the metrics are for.
    """

    predictions: Predictions
    metadata: ModelMetadata
    metrics: dict[str, Any]


def write_report(
    run: RunFolder,
    *,
    model: keras.Model,
    metadata: ModelMetadata,
    decoded: Mapping[str, DecodedImages],
    history_csv: Path | None,
    scorer: Scorer | None = None,
    target_error: float = TARGET_ERROR,
) -> dict[str, Any]:
    """Evaluate a run's own model, store the results in it, and write the run's report.

    Temperature and thresholds are fitted on the validation images. `metrics.json` is written
    last: a run that has it is finished.

    Args:
        run: Holds `model.h5`; takes the report.
        decoded: Images by split; "train" is used for its class counts only.
        scorer: Of the model, where it was opened before.
        target_error: Share of certain verdicts that may be wrong.

    Returns:
        The contents of `metrics.json`.
    """
    evaluation = evaluate_model(
        scorer or open_checked_scorer(model, run.model),
        metadata=metadata,
        decoded=decoded,
        target_error=target_error,
        recalibrate=True,
    )
    store_in_model(run.model, evaluation)
    write_evaluation(run, evaluation, model=model, decoded=decoded, history_csv=history_csv)
    return evaluation.metrics


def count_evaluation_images(decoded: Mapping[str, DecodedImages], *, portraits: bool) -> int:
    """How often the network judges an image, or a crop of one, from training's end to its report.

    Each split is scored once, of the training images only those that others are compared with.

    Args:
        portraits: Whether the whole images are looked at besides, to find portraits.
    """
    return sum(
        (min(len(images), MOST_IMAGES) if split == _TRAIN else len(images))
        * (images.views + portraits)
        for split, images in decoded.items()
    )


def evaluate_model(
    scorer: Scorer,
    *,
    metadata: ModelMetadata,
    decoded: Mapping[str, DecodedImages],
    target_error: float,
    recalibrate: bool,
    by_source: bool | None = None,
    others: Sequence[Path] = (),
    thresholds: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Ask the model about every split but train, and compute all metrics.

    Args:
        decoded: Images by split.
        target_error: Share of certain verdicts that may be wrong.
        recalibrate: Fit temperature and thresholds on the validation images, if there are any;
            otherwise those in the metadata are used.
        by_source: Fit the thresholds for each source; None does where there are enough sources.
        others: Tables of predictions whose validation images count in fitting them.
        thresholds: What is known of the metadata's thresholds; None for nothing.

    Raises:
        InputError: There is nothing to evaluate, or the model has other classes or outputs.
    """
    predictions = _predict_splits(scorer, metadata=metadata, decoded=decoded)
    validation = join_predictions(predictions.of_split("validation"), others)
    if recalibrate and len(np.unique(validation.labels)) > 1:
        if by_source is None:
            by_source = has_sources(metadata, validation.labels, validation.sources)
        metadata, thresholds = calibrate_metadata(
            metadata,
            validation.labels,
            validation.probabilities,
            target_error=target_error,
            sources=validation.sources if by_source else None,
            refused=validation.portraits if by_source else None,
        )
        thresholds["files"] = [path.as_posix() for path in others]
    metrics = {
        **_describe_model(metadata, thresholds),
        "images": {split: images.images.counts for split, images in decoded.items()},
        "data": {split: _describe_data(images) for split, images in decoded.items()},
        **{
            split: split_metrics(predictions.of_split(split), metadata)
            for split in predictions.split_names
        },
        "out_of_distribution": _shares_out_of_distribution(scorer, metadata, decoded),
        "confound": find_confound(predictions.of_split(main_split(predictions))),
        "notes": _notes(thresholds),
    }
    if "sources" in (thresholds or {}) and len(validation):
        judged = predictions.of_split(main_split(predictions))
        metrics["threshold_rules"] = compare_rules(metadata, validation, judged)
    return Evaluation(predictions=predictions, metadata=metadata, metrics=metrics)


def weights_digest(model: keras.Model) -> str:
    """SHA-256 of a network's weights, in hexadecimal: it says which model a report is on."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


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


def _predict_splits(
    scorer: Scorer, *, metadata: ModelMetadata, decoded: Mapping[str, DecodedImages]
) -> Predictions:
    parts = []
    for split, images in decoded.items():
        if images.images.class_names != metadata.class_names:
            raise InputError(
                f"Expected the model's classes {', '.join(metadata.class_names)} in "
                f"{images.images.root}, found {', '.join(images.images.class_names)}."
            )
        if split != _TRAIN:
            parts.append(
                predict_images(scorer, images, split=split, model_input=metadata.model_input)
            )
    if not parts:
        raise InputError("Expected validation or test images to evaluate, found none.")
    return concatenate(parts)


def store_in_model(model_path: Path, evaluation: Evaluation) -> None:
    """Write calibration and test metrics into the model file, so that it serves alone."""
    test = evaluation.metrics.get("test", {})
    # Sources and sizes stay in metrics.json: the model file needs what a verdict's reader needs.
    kept = {name: value for name, value in test.items() if not name.startswith("per_")}
    write_metadata(model_path, dataclasses.replace(evaluation.metadata, metrics=kept))


def write_evaluation(
    run: RunFolder,
    evaluation: Evaluation,
    *,
    model: keras.Model,
    decoded: Mapping[str, DecodedImages],
    history_csv: Path | None,
) -> None:
    """Write the report's files into a folder, `metrics.json` last."""
    from real_vs_ai.evaluation.pictures import draw_mistakes, draw_network

    evaluation.metrics["weights"] = weights_digest(model)
    write_predictions(run.predictions, evaluation.predictions)
    without_picture = draw_network(model, run)
    evaluation.metrics["notes"] += [without_picture] if without_picture else []
    draw_mistakes(
        run, evaluation.predictions, metadata=evaluation.metadata, model=model, decoded=decoded
    )
    _write_from_numbers(run, evaluation.predictions, evaluation.metrics, history_csv=history_csv)
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
    counted = {split: metrics.get(split, {}).get("n") for split in predictions.split_names}
    found = {split: len(predictions.of_split(split)) for split in counted}
    if counted != found or tuple(metrics["class_names"]) != predictions.class_names:
        raise InputError(
            f"Expected {run.predictions.name} and {run.metrics.name} in {run.path} to belong "
            f"together, found {found} rows but {counted} counted. Run ModelEvaluation.py again."
        )
    return _write_from_numbers(run, predictions, metrics, history_csv=run.history)


def _write_from_numbers(
    run: RunFolder, predictions: Predictions, metrics: Mapping, *, history_csv: Path | None
) -> list[Path]:
    drawn = draw_report(run, predictions, metrics, history=read_history(history_csv))
    write_text(run.classification_report, _classification_report(predictions, metrics))
    write_model_card(run, metrics)
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


def _shares_out_of_distribution(
    scorer: Scorer, metadata: ModelMetadata, decoded: Mapping[str, DecodedImages]
) -> dict[str, Any]:
    """The share of each split that is out-of-distribution."""
    if not metadata.training_images and scorer.check is None:
        return {}
    return {
        split: share_out_of_distribution(scorer, images, metadata=metadata)
        for split, images in decoded.items()
        if split != _TRAIN
    }


def _notes(thresholds: Mapping[str, Any] | None) -> list[str]:
    """What the terminal should say in addition to the numbers."""
    bounds = (thresholds or {}).get("validation", {})
    if all(bound["reached"] for bound in bounds.values()):
        return []
    if "sources" in thresholds:
        share = f"{100 * thresholds['target_error']:g} %"
        sides = {"upper": ("false alarms in every source of real images", "Fake")}
        sides["lower"] = ("misses in every source of fakes", "Real")
        return [
            f"No threshold keeps {what} of the validation images at {share} or less: no verdict "
            f"is {verdict}. ModelEvaluation.py --target-error asks for less."
            for side, (what, verdict) in sides.items()
            if not bounds[side]["reached"]
        ]
    return [
        "The validation images are too few, or the model too poor, to promise that at most "
        f"{100 * thresholds['target_error']:g} % of the certain verdicts are wrong; many verdicts "
        "will be Uncertain. ModelEvaluation.py --target-error 0.1 asks for less."
    ]


def _describe_data(decoded: DecodedImages) -> dict[str, Any]:
    return {
        "folder": decoded.images.root.as_posix(),
        "fingerprint": fingerprint_images(decoded.images),
        "unreadable": [{"path": path, "reason": reason} for path, reason in decoded.failures],
    }
