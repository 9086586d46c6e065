"""Run ModelEvaluation.py: write a report folder and return a text for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    import keras

    from real_vs_ai.evaluation.report import Evaluation, Fitting
    from real_vs_ai.serving.detector import Detector

_EXPORTS = "exports"
_COUNTED_SPLIT = "train"
_EVALUATIONS = "evaluations"
# The libraries' files are checked on so many images.
_CHECKED_IMAGES = 200
_CHECKED_BYTES = 2**28


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        complete: Whether everything asked for was written.
    """

    text: str
    complete: bool


@dataclass(frozen=True)
class Subject:
    """A model and the images to judge.

    Attributes:
        path: Of the model's file.
        has_metadata: Whether the file holds the metadata.
        images: By split.
        own: Whether these are the images that the run was trained and reported with.
    """

    path: Path
    model: keras.Model
    metadata: ModelMetadata
    has_metadata: bool
    images: Mapping[str, LabelledImages]
    own: bool


def run_evaluation(options: EvaluationOptions) -> Outcome:
    """Do what the options ask for, and say what came out.

    Raises:
        FileNotFoundError: There is no such model or data.
        InputError: Model and data do not fit.
        FileExistsError: Another report would be replaced.
    """
    if options.redraw:
        return Outcome(_redraw(options.output or options.model), complete=True)
    path, others = find_model(options.model), options.out_of_distribution
    compared_path = find_model(options.compare) if options.compare else None
    _check_paths((options.data, *others), tables=options.thresholds_from)
    # After the checks, since these import TensorFlow.
    from real_vs_ai.evaluation.extras import add_extras
    from real_vs_ai.evaluation.judging import open_detector
    from real_vs_ai.evaluation.report import evaluate_model, write_evaluation

    subject = _open_subject(path, options.data, class_names=options.class_names)
    for folder in others:
        _list_splits(folder, subject.metadata)
    compared = compared_path and _open_compared(compared_path, subject, options.class_names)
    run = RunFolder(path.parent)
    report = RunFolder(options.output or _default_output(subject, options.data))
    refreshes_run = report.path.resolve() == run.path.resolve()
    if not options.overwrite:
        check_output(
            report, subject.images, model=None if refreshes_run and subject.own else subject.model
        )
    detector, workers = open_detector(path, subject.metadata), options.workers
    fitting, known = _choose_fitting(subject, options.target_error, options.thresholds_from)
    evaluation = evaluate_model(
        detector, subject.images, left_out={}, fitting=fitting, known=known, workers=workers
    )
    told = add_extras(
        evaluation,
        detector,
        stored=read_json(report.metrics) if report.metrics.is_file() else {},
        robustness=options.robustness,
        others=others,
        compared=compared,
        workers=workers,
    )
    if refreshes_run or not subject.has_metadata:
        told.append(_store(path, evaluation))
    history = run.history if refreshes_run else None
    write_evaluation(report, evaluation, model=subject.model, history_csv=history)
    complete = True
    if options.export:
        exports, complete = _export(subject, evaluation, options.export, workers=workers)
        told.append(exports)
    return Outcome(_summary(evaluation.metrics, report=report, notes=told), complete)


def _check_paths(folders: Sequence[Path], *, tables: Sequence[Path]) -> None:
    """Refuse paths that lead nowhere, before TensorFlow is imported.

    Raises:
        FileNotFoundError: There is no such folder or table of predictions.
    """
    for folder in folders:
        find_splits(folder)
    for table in tables:
        read_predictions(table)


def _list_splits(data: Path, metadata: ModelMetadata) -> dict[str, LabelledImages]:
    return {
        split: list_labelled_images(folder, class_names=metadata.class_names)
        for split, folder in find_splits(data).items()
    }


def _open_subject(path: Path, data: Path, *, class_names: tuple[str, ...] | None) -> Subject:
    from real_vs_ai.keras_models import open_model

    model, metadata, has_metadata = open_model(path, class_names=class_names)
    images, run = _list_splits(data, metadata), RunFolder(path.parent)
    # Another file in the run's folder has nothing to do with its report.
    own = path == run.model and is_own_data(run, images, data=data)
    return Subject(path, model, metadata, has_metadata, images, own)


def _open_compared(path: Path, subject: Subject, class_names: tuple[str, ...] | None) -> Detector:
    """The model to compare with, which must have the subject's classes."""
    from real_vs_ai.evaluation.judging import open_detector
    from real_vs_ai.keras_models import open_model

    _, other, _ = open_model(path, class_names=class_names)
    expected = subject.metadata.class_names
    if other.class_names != expected:
        raise InputError(
            f"Expected a model of the classes {', '.join(expected)} to compare with, "
            f"found {', '.join(other.class_names)} in {path}."
        )
    return open_detector(path, other)


def _choose_fitting(
    subject: Subject, target_error: float | None, tables: tuple[Path, ...]
) -> tuple[Fitting | None, Mapping[str, Any] | None]:
    """How to fit the thresholds, or None to keep the model's own; and what is known of these."""
    from real_vs_ai.evaluation.report import TARGET_ERROR, Fitting

    run = RunFolder(subject.path.parent)
    stored = read_json(run.metrics).get("thresholds", {}) if run.metrics.is_file() else {}
    trained = read_json(run.config).get("options", {}) if run.config.is_file() else {}
    source_risk, asked = trained.get("source_risk", 0.0), bool(target_error or tables)
    # Thresholds that rest on other runs are not replaced by the way.
    keeps = subject.own and not asked and bool(stored.get("files"))
    if not asked and (keeps or not subject.own) and subject.metadata.calibrated:
        return None, stored if keeps else None
    target = target_error or source_risk or stored.get("target_error") or TARGET_ERROR
    return Fitting(target, new_source=source_risk > 0, tables=tables), None


def _store(path: Path, evaluation: Evaluation) -> str:
    from real_vs_ai.evaluation.report import store_in_model

    # Keras reads more formats than HDF5.
    if not h5py.is_hdf5(path):
        return f"Calibration and metrics are not stored in {path}: it is no HDF5 file."
    store_in_model(path, evaluation)
    return f"Calibration and metrics are stored in {path}."


def _export(
    subject: Subject, evaluation: Evaluation, formats: Sequence[str], *, workers: int
) -> tuple[str, bool]:
    """Write the model in other formats; a table for the terminal, and whether all were written."""
    from real_vs_ai.dataset.decoded_images import decode_images
    from real_vs_ai.evaluation.export import export_model, exports_table
    from real_vs_ai.out_of_distribution.check import read_check

    images = evaluation.main.images
    checked = decode_images(
        images.take(images.draw(_CHECKED_IMAGES)),
        model_input=evaluation.metadata.model_input,
        workers=workers,
        max_memory_bytes=_CHECKED_BYTES,
    )
    results = export_model(
        subject.model,
        formats=formats,
        folder=subject.path.parent / _EXPORTS,
        metadata=evaluation.metadata,
        check=read_check(subject.path),
        pixels=checked.inputs,
    )
    table = format_table(*exports_table(results), title="Exports")
    return f"{table}\n", all(result.path for result in results)


def is_own_data(run: RunFolder, images: Mapping[str, LabelledImages], *, data: Path) -> bool:
    """Whether these are the images that the run was trained and reported with."""
    if run.metrics.is_file():
        return is_reported(run, images)
    if run.config.is_file():
        trained_on = read_json(run.config).get("options", {}).get("data")
        return trained_on is not None and Path(trained_on).resolve() == data.resolve()
    return False


def _default_output(subject: Subject, data: Path) -> Path:
    """Where a report goes when nobody says: the run's folder, or a folder for the data in it."""
    run = RunFolder(subject.path.parent)
    if subject.own:
        return run.path
    resolved = data.resolve()
    is_split = canonical_split(resolved.name) and resolved.parent.name
    name = f"{resolved.parent.name}-{resolved.name}" if is_split else resolved.name
    # Several model files may share a folder, so its name tells their reports apart.
    prefix = "" if subject.path == run.model else f"{subject.path.stem}-"
    return run.path / _EVALUATIONS / (re.sub(r"[^\w.-]+", "-", prefix + name) or "data")


def check_output(
    report: RunFolder, images: Mapping[str, LabelledImages], *, model: keras.Model | None
) -> None:
    """Refuse to replace a report on other images or another model.

    Args:
        model: None where it is known to be the same.

    Raises:
        FileExistsError: There is one.
    """
    from real_vs_ai.evaluation.report import weights_digest

    if not report.metrics.is_file():
        return
    others = []
    if not is_reported(report, images):
        others.append("other images")
    if model and read_json(report.metrics).get("weights") != weights_digest(model):
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


def _redraw(named: Path | None) -> str:
    from real_vs_ai.evaluation.report import redraw_report

    folder = named if named and named.is_dir() else find_model(named).parent
    drawn = redraw_report(RunFolder(folder))
    return f"{plural(len(drawn), 'figure')} drawn again in {RunFolder(folder).figures}."


def _summary(metrics: Mapping[str, Any], *, report: RunFolder, notes: list[str]) -> str:
    from real_vs_ai.evaluation.metrics import REPORTED_SPLITS
    from real_vs_ai.evaluation.tables import results_table

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
