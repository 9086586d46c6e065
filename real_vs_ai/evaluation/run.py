"""Run ModelEvaluation.py: write a report folder and return a text for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from real_vs_ai.config import canonical_split
from real_vs_ai.dataset.decoded_images import find_splits
from real_vs_ai.dataset.labelled_images import (
    LabelledImages,
    fingerprint_images,
    list_labelled_images,
)
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.options import EvaluationOptions
from real_vs_ai.files import read_json
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.predictions import read_predictions
from real_vs_ai.reporting import format_table, plural
from real_vs_ai.runs import RunFolder, find_model

if TYPE_CHECKING:
    from real_vs_ai.evaluation.report import Evaluation
    from real_vs_ai.serving.detector import Detector

_EXPORTS = "exports"
_COUNTED_SPLIT = "train"
_EVALUATIONS = "evaluations"


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        complete: Whether everything asked for was written.
    """

    text: str
    complete: bool


def run_evaluation(options: EvaluationOptions) -> Outcome:
    """Do what the options ask for, and say what came out.

    Raises:
        FileNotFoundError: There is no such model or data.
        InputError: Model and data do not fit.
        FileExistsError: Another report would be replaced.
    """
    if options.redraw:
        return Outcome(_redraw(options), complete=True)
    model_path = find_model(options.model)
    _check_paths(options)
    # After the checks, since these import TensorFlow.
    from real_vs_ai.evaluation.judging import open_detector
    from real_vs_ai.evaluation.report import weights_digest, write_evaluation
    from real_vs_ai.keras_models import open_model

    model, metadata, has_metadata = open_model(model_path, class_names=options.class_names)
    images = _list_splits(options.data, metadata)
    other = _check_extras(options, metadata)
    run = RunFolder(model_path.parent)
    # Another file in the run's folder has nothing to do with its report.
    own = model_path == run.model and is_own_data(run, images, data=options.data)
    report = RunFolder(options.output or default_output(model_path, data=options.data, own=own))
    refreshes_run = report.path.resolve() == run.path.resolve()
    if not options.overwrite:
        # A run's own report may be of an earlier release, which did not tell the weights.
        weights = None if refreshes_run and own else weights_digest(model)
        check_output(report, images, weights=weights)
    detector = open_detector(model_path, metadata)
    evaluation = _evaluate(detector, images, options, run=run, own=own)
    notes = _add_extras(evaluation, detector, options, other=other, report=report)
    if refreshes_run or not has_metadata:
        notes.append(_store(model_path, evaluation))
    history = run.history if refreshes_run else None
    write_evaluation(report, evaluation, model=model, history_csv=history)
    exports, complete = "", True
    if options.export:
        from real_vs_ai.evaluation.extras import add_exports

        exports, complete = add_exports(
            evaluation,
            model,
            model_path,
            options.export,
            folder=run.path / _EXPORTS,
            workers=options.workers,
        )
    text = _summary(evaluation.metrics, report=report, notes=[*notes, *filter(None, [exports])])
    return Outcome(text, complete)


def _list_splits(data: Path, metadata: ModelMetadata) -> dict[str, LabelledImages]:
    return {
        split: list_labelled_images(folder, class_names=metadata.class_names)
        for split, folder in find_splits(data).items()
    }


def _check_paths(options: EvaluationOptions) -> None:
    """Refuse paths that lead nowhere, before TensorFlow is imported.

    Raises:
        FileNotFoundError: There is no such model or folder.
    """
    for folder in (options.data, *options.out_of_distribution):
        find_splits(folder)
    for path in options.thresholds_from:
        read_predictions(path)
    if options.compare:
        find_model(options.compare)


def _evaluate(
    detector: Detector,
    images: Mapping[str, LabelledImages],
    options: EvaluationOptions,
    *,
    run: RunFolder,
    own: bool,
) -> Evaluation:
    """Judge the images, with new thresholds or the model's own.

    Args:
        run: The model's.
        own: Whether these are the images that it was reported with.
    """
    from real_vs_ai.evaluation.report import TARGET_ERROR, evaluate_model

    stored = read_json(run.metrics).get("thresholds", {}) if run.metrics.is_file() else {}
    trained = read_json(run.config).get("options", {}) if run.config.is_file() else {}
    source_risk = trained.get("source_risk", 0.0)
    asked = options.target_error or options.thresholds_from
    # Thresholds that rest on other runs are not replaced by the way.
    keeps = own and not asked and bool(stored.get("files"))
    return evaluate_model(
        detector,
        images,
        left_out={},
        target_error=options.target_error
        or source_risk
        or stored.get("target_error")
        or TARGET_ERROR,
        recalibrate=bool(asked) or (own and not keeps) or not detector.metadata.calibrated,
        workers=options.workers,
        others=options.thresholds_from,
        thresholds=stored if keeps else None,
        new_source=source_risk > 0,
    )


def _check_extras(options: EvaluationOptions, metadata: ModelMetadata) -> ModelMetadata | None:
    """Refuse what could not be done later; the metadata of the model to compare with."""
    from real_vs_ai.keras_models import open_model

    for folder in options.out_of_distribution:
        _list_splits(folder, metadata)
    if not options.compare:
        return None
    path = find_model(options.compare)
    _, other, _ = open_model(path, class_names=options.class_names)
    if other.class_names != metadata.class_names:
        raise InputError(
            f"Expected a model of the classes {', '.join(metadata.class_names)} to compare with, "
            f"found {', '.join(other.class_names)} in {path}."
        )
    return other


def _add_extras(
    evaluation: Evaluation,
    detector: Detector,
    options: EvaluationOptions,
    *,
    other: ModelMetadata | None,
    report: RunFolder,
) -> list[str]:
    """Add to the metrics what was asked for beyond them; tables for the terminal."""
    from real_vs_ai.evaluation import extras

    workers, tables = options.workers, []
    extras.keep_extras(evaluation, report)
    if options.robustness:
        tables.append(extras.add_robustness(evaluation, detector, workers=workers))
    if folders := options.out_of_distribution:
        tables.append(extras.add_other_images(evaluation, detector, folders, workers=workers))
    if other:
        path = find_model(options.compare)
        tables.append(extras.add_comparison(evaluation, path, other, workers=workers))
    tables.append(extras.add_collections(evaluation, detector, workers=workers))
    return [f"{table}\n" for table in tables if table]


def _store(model_path: Path, evaluation: Evaluation) -> str:
    from real_vs_ai.evaluation.report import store_in_model

    # Keras reads more formats than HDF5.
    if not h5py.is_hdf5(model_path):
        return f"Calibration and metrics are not stored in {model_path}: it is no HDF5 file."
    store_in_model(model_path, evaluation)
    return f"Calibration and metrics are stored in {model_path}."


def is_own_data(run: RunFolder, images: Mapping[str, LabelledImages], *, data: Path) -> bool:
    """Whether these are the images that the run was trained and reported with."""
    if run.metrics.is_file():
        return is_reported(run, images)
    if run.config.is_file():
        trained_on = read_json(run.config).get("options", {}).get("data")
        return trained_on is not None and Path(trained_on).resolve() == data.resolve()
    return False


def default_output(model_path: Path, *, data: Path, own: bool) -> Path:
    """Where a report goes when nobody says: the run's folder, or a folder for the data in it."""
    run = RunFolder(model_path.parent)
    if own:
        return run.path
    resolved = data.resolve()
    is_split = canonical_split(resolved.name) and resolved.parent.name
    name = f"{resolved.parent.name}-{resolved.name}" if is_split else resolved.name
    # Several model files may share a folder, so its name tells their reports apart.
    prefix = "" if model_path == run.model else f"{model_path.stem}-"
    return run.path / _EVALUATIONS / (re.sub(r"[^\w.-]+", "-", prefix + name) or "data")


def check_output(
    report: RunFolder, images: Mapping[str, LabelledImages], *, weights: str | None
) -> None:
    """Refuse to replace a report on other images or another model.

    Args:
        weights: `weights_digest` of the model; None where it is known to be the same.

    Raises:
        FileExistsError: There is one.
    """
    if not report.metrics.is_file():
        return
    others = []
    if not is_reported(report, images):
        others.append("other images")
    if weights and read_json(report.metrics).get("weights") != weights:
        others.append("another model")
    if others:
        raise FileExistsError(
            f"{report.path} holds a report on {' and '.join(others)}. Name another folder with "
            "--output, or replace it with --overwrite."
        )


def is_reported(report: RunFolder, images: Mapping[str, LabelledImages]) -> bool:
    """Whether a finished report is on these images, less those that it could not read."""
    found = {}
    data = read_json(report.metrics).get("data", {})
    for split, some in images.items():
        unreadable = {one["path"] for one in data.get(split, {}).get("unreadable", ())}
        kept = [i for i, path in enumerate(some.paths) if path not in unreadable]
        found[split] = fingerprint_images(some.take(kept))
    # The training images are only counted.
    evaluated = (data.keys() | found.keys()) - {_COUNTED_SPLIT}
    return all(data.get(s, {}).get("fingerprint") == found.get(s) for s in evaluated)


def _redraw(options: EvaluationOptions) -> str:
    from real_vs_ai.evaluation.report import redraw_report

    named = options.output or options.model
    folder = named if named and named.is_dir() else find_model(options.model).parent
    drawn = redraw_report(RunFolder(folder))
    return f"{plural(len(drawn), 'figure')} drawn again in {RunFolder(folder).figures}."


def _summary(metrics: Mapping[str, Any], *, report: RunFolder, notes: list[str]) -> str:
    from real_vs_ai.evaluation.metrics import REPORTED_SPLITS, results_table

    title = "; ".join(
        f"{split}: " + ", ".join(f"{n:,} {name}" for name, n in metrics[split]["counts"].items())
        for split in REPORTED_SPLITS
        if split in metrics
    )
    lines = [format_table(*results_table(metrics), title=title), ""]
    for split, part in metrics["data"].items():
        lines += [f"Left out of {split}: {x['path']}: {x['reason']}" for x in part["unreadable"]]
    confound = metrics.get("confound") or {}
    if confound.get("warning"):
        lines += [f"Warning: {confound['warning']}", ""]
    lines += metrics["notes"]
    return "\n".join([*lines, *notes, f"The report is in {report.path}."])
