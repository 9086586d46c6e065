"""Write a report's folder, and what the model file says of itself, all together or not at all."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
from sklearn.metrics import classification_report

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import read_json, write_json, write_table, write_text
from real_vs_ai.core.reporting import plural
from real_vs_ai.core.transactions import replace_together
from real_vs_ai.evaluation.by_collection import COLLECTION_COLUMNS, collection_rows
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
from real_vs_ai.evaluation.metrics import REPORTED_SPLITS
from real_vs_ai.evaluation.model_card import model_card
from real_vs_ai.evaluation.network_picture import draw_network
from real_vs_ai.evaluation.report import Evaluation
from real_vs_ai.models.model_file import write_metadata
from real_vs_ai.models.runs import RunFolder, read_history
from real_vs_ai.verdicts.predictions import Predictions, read_predictions, write_predictions

if TYPE_CHECKING:
    import keras


def write_evaluation(
    run: RunFolder, evaluation: Evaluation, *, model: keras.Model, store_in: Path | None
) -> str:
    """Replace a folder's report, and calibration and test metrics in a model file.

    Killed at any instant, it leaves both as they were or both new: see `transactions`.

    Args:
        store_in: The model file, which then serves alone; None leaves it.

    Returns:
        What was done with the model file, in a sentence, or "".
    """
    # Keras reads more formats than HDF5.
    stored = store_in if store_in is not None and h5py.is_hdf5(store_in) else None
    with replace_together(stored.parent if stored else run.path) as new:
        _write_report(
            RunFolder(new.of(run.path, whole=(run.figures.name,))), run, evaluation, model
        )
        if stored:
            made = new.of(stored.parent) / stored.name
            shutil.copyfile(stored, made)
            test = evaluation.metrics.get("test", {})
            # Sources and sizes stay in metrics.json: a verdict's reader does not need them.
            kept = {name: value for name, value in test.items() if not name.startswith("per_")}
            write_metadata(made, dataclasses.replace(evaluation.metadata, metrics=kept))
    if store_in is None:
        return ""
    if stored is None:
        return f"Calibration and metrics are not stored in {store_in}: it is no HDF5 file."
    return f"Calibration and metrics are stored in {store_in}."


def _write_report(
    into: RunFolder, run: RunFolder, evaluation: Evaluation, model: keras.Model
) -> None:
    """Write all files of the report on a run."""
    if missing := draw_network(model, into):
        evaluation.metrics["notes"].append(missing)
    write_predictions(into.predictions, evaluation.predictions)
    main = evaluation.main
    draw_mistakes(
        evaluation.predictions.of_split(main.split),
        main.images,
        metadata=evaluation.metadata,
        engine=evaluation.engine,
        path=into.figures / "mistakes.png",
    )
    _write_from_numbers(into, run, evaluation.predictions, evaluation.metrics)
    write_json(into.metrics, evaluation.metrics)


def redraw_report(run: RunFolder) -> list[Path]:
    """Write what `predictions.csv` and `metrics.json` of a report determine: figures and texts.

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
    predictions = dataclasses.replace(
        predictions, temperature=metrics["temperature"], offset=metrics.get("offset", 0.0)
    )
    counted = {split: metrics.get(split, {}).get("n") for split in predictions.split_names}
    found = {split: len(predictions.of_split(split)) for split in counted}
    if counted != found or tuple(metrics["class_names"]) != predictions.class_names:
        raise InputError(
            f"Expected {run.predictions.name} and {run.metrics.name} in {run.path} to belong "
            f"together, found {found} rows but {counted} counted. Run ModelEvaluation.py again."
        )
    return _write_from_numbers(run, run, predictions, metrics)


def _write_from_numbers(
    into: RunFolder, run: RunFolder, predictions: Predictions, metrics: Mapping[str, Any]
) -> list[Path]:
    """Write what needs neither images nor model; the figures drawn."""
    config = read_json(run.config) if run.config.is_file() else {}
    drawn = draw_report(into.figures, predictions, metrics)
    if history := read_history(run.history):
        drawn.append(into.figures / "history.png")
        keep = config.get("options", {}).get("keep", "best")
        draw_history(history, keep=keep, path=drawn[-1])
    texts = {
        into.classification_report: _classification_report(predictions, metrics),
        into.model_card: model_card(run.name, metrics, config),
    }
    for path, text in texts.items():
        write_text(path, text)
    write_table(into.collections, COLLECTION_COLUMNS, collection_rows(metrics))
    return drawn


def draw_report(folder: Path, predictions: Predictions, metrics: Mapping[str, Any]) -> list[Path]:
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


def _classification_report(predictions: Predictions, metrics: Mapping[str, Any]) -> str:
    """scikit-learn's report for each split, at the class of highest probability."""
    texts = []
    for split in predictions.split_names:
        rows = predictions.of_split(split)
        table = classification_report(
            rows.labels,
            rows.calibrated.argmax(axis=1),
            labels=range(len(rows.class_names)),
            target_names=list(rows.class_names),
            digits=4,
            zero_division=0,
        )
        accuracy = metrics[split]["accuracy"]
        texts.append(
            f"{split}: {plural(len(rows), 'image')}, accuracy {accuracy['value']:.4f} "
            f"(95 % interval {accuracy['low']:.4f} to {accuracy['high']:.4f})\n\n{table}"
        )
    return "\n".join(texts)
