"""Run ModelEvaluation.py: write a report folder and return a text for the terminal."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from real_vs_ai.config import canonical_split
from real_vs_ai.dataset.decoded_images import DecodedImages, find_splits
from real_vs_ai.dataset.labelled_images import fingerprint_images, list_labelled_images
from real_vs_ai.evaluation.options import EvaluationOptions
from real_vs_ai.files import read_json
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.predictions import read_predictions
from real_vs_ai.reporting import format_table, plural
from real_vs_ai.runs import RunFolder, find_model

if TYPE_CHECKING:
    from real_vs_ai.evaluation.report import Evaluation
    from real_vs_ai.evaluation.scorer import Scorer

_EXPORTS = "exports"
# Its images are only counted here, so unreadable ones among them are not known.
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
    from real_vs_ai.evaluation.extras import Job, add_exports, add_extras, decode_data
    from real_vs_ai.evaluation.report import weights_digest, write_evaluation
    from real_vs_ai.evaluation.scorer import open_checked_scorer
    from real_vs_ai.keras_models import open_model

    model, metadata, has_metadata = open_model(
        model_path, class_names=options.class_names, image_size=options.image_size
    )
    metadata = _change_input(metadata, options)
    # Refuse what could not be done later, before minutes are spent on the images.
    for folder in options.out_of_distribution:
        for split_folder in find_splits(folder).values():
            list_labelled_images(split_folder, class_names=metadata.class_names)
    decoded = decode_data(options, metadata)
    run = RunFolder(model_path.parent)
    # Another file in the run's folder has nothing to do with its report.
    own = model_path == run.model and is_own_data(run, decoded, data=options.data)
    report = RunFolder(options.output or default_output(model_path, data=options.data, own=own))
    refreshes_run = report.path.resolve() == run.path.resolve()
    # A run's own report may be of an earlier release, which did not tell the weights.
    weights = None if refreshes_run and own else weights_digest(model)
    if not options.overwrite:
        check_output(report, decoded, weights=weights)
    # After all that could refuse, since it changes the model file.
    fitted = _fit_check(model_path, options)
    scorer = open_checked_scorer(model, model_path)
    evaluation = _evaluate(options, scorer, run=run, own=own, metadata=metadata, decoded=decoded)
    job = Job(options, model, model_path, scorer, decoded, report)
    notes = fitted + add_extras(evaluation, job)
    if refreshes_run or not has_metadata:
        notes.append(_store(model_path, evaluation))
    history = run.history if refreshes_run else None
    write_evaluation(report, evaluation, model=model, decoded=decoded, history_csv=history)
    exports, complete = add_exports(evaluation, job, folder=run.path / _EXPORTS)
    notes += exports
    return Outcome(_summary(evaluation.metrics, report=report, notes=notes), complete)


def _change_input(metadata: ModelMetadata, options: EvaluationOptions) -> ModelMetadata:
    """The metadata with what the options say about the views of an image."""
    changes: dict[str, Any] = {}
    if options.mirror_below is not None:
        changes["mirror_below"] = options.mirror_below
    if options.aggregate and metadata.model_input.is_crops:
        changes["aggregate_by"] = options.aggregate
    if not changes:
        return metadata
    changed = dataclasses.replace(metadata.model_input, **changes)
    return dataclasses.replace(metadata, input=changed.stored())


def _evaluate(
    options: EvaluationOptions,
    scorer: Scorer,
    *,
    run: RunFolder,
    own: bool,
    metadata: ModelMetadata,
    decoded: Mapping[str, DecodedImages],
) -> Evaluation:
    """Score the images, with new thresholds or the model's own.

    `own` says whether these are the images that the model's run was reported with.
    """
    from real_vs_ai.evaluation.report import TARGET_ERROR, evaluate_model

    stored = read_json(run.metrics).get("thresholds", {}) if run.metrics.is_file() else {}
    asked = (
        options.target_error,
        options.thresholds,
        options.thresholds_from,
        options.aggregate,
        options.mirror_below is not None,
    )
    # Thresholds that rest on other runs are not replaced by the way.
    keeps = own and not any(asked) and bool(stored.get("files"))
    by_source = options.thresholds == "by-source" if options.thresholds else None
    by_source = True if by_source is None and "sources" in stored else by_source
    return evaluate_model(
        scorer,
        metadata=metadata,
        decoded=decoded,
        target_error=options.target_error or stored.get("target_error") or TARGET_ERROR,
        recalibrate=(own and not keeps) or not metadata.calibrated or any(asked),
        by_source=by_source,
        others=options.thresholds_from,
        thresholds=stored if keeps else None,
    )


def _check_paths(options: EvaluationOptions) -> None:
    """Refuse paths that lead nowhere, before TensorFlow is imported.

    Raises:
        FileNotFoundError: There is no such model or folder.
    """
    for folder in (options.data, *options.out_of_distribution):
        find_splits(folder)
    for folder in options.fit_out_of_distribution:
        if not folder.is_dir():
            raise FileNotFoundError(f"Expected a folder of pictures at {folder}, found none.")
    for path in options.thresholds_from:
        read_predictions(path)
    for model in filter(None, (options.compare, options.check_from)):
        find_model(model)


def _fit_check(model_path: Path, options: EvaluationOptions) -> list[str]:
    """Give the model file what the options ask for; lines that say what it does."""
    if not (options.fit_out_of_distribution or options.check_from):
        return []
    from real_vs_ai.evaluation.thumbnails import copy_classifiers, fit_on_thumbnails

    where = {
        "data": options.data,
        "workers": options.workers,
        "max_memory_bytes": options.max_memory_bytes,
    }
    if options.check_from:
        return [copy_classifiers(model_path, find_model(options.check_from), **where)]
    return [fit_on_thumbnails(model_path, folders=options.fit_out_of_distribution, **where)]


def _store(model_path: Path, evaluation: Evaluation) -> str:
    from real_vs_ai.evaluation.report import store_in_model

    # Keras reads more formats than HDF5.
    if not h5py.is_hdf5(model_path):
        return f"Calibration and metrics are not stored in {model_path}: it is no HDF5 file."
    store_in_model(model_path, evaluation)
    return f"Calibration and metrics are stored in {model_path}."


def is_own_data(run: RunFolder, decoded: Mapping[str, DecodedImages], *, data: Path) -> bool:
    """Whether these are the images that the run was trained and reported with."""
    if run.metrics.is_file():
        return reported_fingerprints(run) == _fingerprints(decoded)
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
    report: RunFolder, decoded: Mapping[str, DecodedImages], *, weights: str | None
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
    if reported_fingerprints(report) != _fingerprints(decoded):
        others.append("other images")
    if weights and read_json(report.metrics).get("weights") != weights:
        others.append("another model")
    if others:
        raise FileExistsError(
            f"{report.path} holds a report on {' and '.join(others)}. Name another folder with "
            "--output, or replace it with --overwrite."
        )


def reported_fingerprints(report: RunFolder) -> dict[str, str | None]:
    """Which images a finished report is on: the fingerprint of each evaluated split."""
    data = read_json(report.metrics).get("data", {})
    return {
        split: part.get("fingerprint") for split, part in data.items() if split != _COUNTED_SPLIT
    }


def _fingerprints(decoded: Mapping[str, DecodedImages]) -> dict[str, str | None]:
    return {
        split: fingerprint_images(images.images)
        for split, images in decoded.items()
        if split != _COUNTED_SPLIT
    }


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
