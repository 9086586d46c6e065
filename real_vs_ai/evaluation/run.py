"""Do what ModelEvaluation.py is asked for: write a report folder, and export the model.

TensorFlow, Matplotlib and scikit-learn are imported after the checks, which then answer at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import read_json
from real_vs_ai.core.reporting import format_table, plural
from real_vs_ai.evaluation.options import EvaluationOptions
from real_vs_ai.evaluation.planning import Task, plan_evaluation, read_report
from real_vs_ai.models.model_file import ModelFileError, read_metadata
from real_vs_ai.models.runs import RunFolder, find_model, newest_run

if TYPE_CHECKING:
    from real_vs_ai.serving.detector import Detector

_EXPORTS = "exports"
# Exported files are checked on so many images.
_MOST_CHECKED = 200


def run_evaluation(options: EvaluationOptions) -> tuple[str, bool]:
    """Do what the options ask for.

    Returns:
        A text for the terminal, and whether everything asked for was written.

    Raises:
        FileNotFoundError: There is no such model or data.
        InputError: Model and data do not fit, or another process evaluates this run.
        FileExistsError: Another report would be replaced.
    """
    if options.redraw:
        return _redraw(options.output or options.model), True
    path = _find_evaluated(options.model)
    if options.openvino:
        return _add_form(path), True
    has_metadata = _has_metadata(path)
    task = plan_evaluation(options, path)
    # What is written together is locked together: see `write_evaluation`.
    home = task.report.path if has_metadata else path.parent
    with _alone(home):
        # Another evaluation may have ended meanwhile.
        task = replace(task, stored=read_report(task.report))
        if task.stored and not (options.overwrite or task.adds_to_report):
            raise FileExistsError(
                f"{task.report.path} holds a report, and --overwrite replaces it. "
                "Or name another folder by --output."
            )
        if task.adds_to_report and not task.asks_for_more:
            texts = [_summary(task.stored, {}), _already_there(task)]
        else:
            texts = _evaluate(task, stores=task.refreshes_run or not has_metadata)
        exports, complete = _export(task)
    return "\n".join([*texts, *exports]), complete


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process write this folder's report meanwhile.

    Raises:
        InputError: One does.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".evaluation.lock"
    try:
        with FileLock(lock).acquire(blocking=False):
            try:
                yield
            finally:
                with suppress(OSError):
                    lock.unlink()
    except Timeout:
        raise InputError(
            f"Another process is writing the report in {folder}. Wait until it ends, or name "
            "another folder by --output."
        ) from None
    finally:
        # A folder that was made for nothing goes.
        with suppress(OSError):
            folder.rmdir()


def _evaluate(task: Task, *, stores: bool) -> list[str]:
    """Judge the images and write the report; what to say of it.

    Args:
        stores: Whether the model file gets the calibration and metrics.
    """
    from real_vs_ai.evaluation.extras import add_extras
    from real_vs_ai.evaluation.judging import open_detector
    from real_vs_ai.evaluation.report import evaluate_model
    from real_vs_ai.evaluation.report_files import write_evaluation
    from real_vs_ai.models.keras_models import open_model

    options = task.options
    model, metadata, _ = open_model(task.model, class_names=options.class_names)
    fits = not task.adds_to_report and (task.own or not metadata.calibrated)
    asked = None if task.adds_to_report else options.target_error
    target, by_source = _choose_target(asked, task.run, fits=fits)
    compared = _open_compared(task.compared, metadata.class_names) if task.compared else None
    detector = open_detector(task.model, metadata)
    evaluation = evaluate_model(
        detector,
        task.images,
        left_out={},
        target_error=target,
        by_source=by_source,
        workers=options.workers,
        thresholds=task.stored["thresholds"] if task.adds_to_report else None,
    )
    titles = add_extras(
        evaluation,
        detector,
        stored=task.stored,
        robustness=options.robustness,
        others=task.others,
        compared=compared,
        workers=options.workers,
    )
    store_in = task.model if stores else None
    said = write_evaluation(task.report, evaluation, model=model, store_in=store_in)
    notes = filter(None, [said, f"The report is in {task.report.path}."])
    return [_summary(evaluation.metrics, titles), *notes]


def _already_there(task: Task) -> str:
    return (
        f"This is the report in {task.report.path}, of the same model and images. "
        "--overwrite judges them again."
    )


def _has_metadata(path: Path) -> bool:
    try:
        read_metadata(path)
    except ModelFileError:
        return False
    return True


def _open_compared(path: Path, class_names: tuple[str, ...]) -> Detector:
    """The model to compare with, which must have these classes."""
    from real_vs_ai.evaluation.judging import open_detector

    other = read_metadata(path)
    if other.class_names != class_names:
        raise InputError(
            f"Expected a model of the classes {', '.join(class_names)} to compare with, "
            f"found {', '.join(other.class_names)} in {path}."
        )
    return open_detector(path, other)


def _choose_target(asked: float | None, run: RunFolder, *, fits: bool) -> tuple[float | None, bool]:
    """The target error to fit thresholds for, None to keep the model's; and whether by source.

    Args:
        fits: Whether they are fitted unasked.
    """
    from real_vs_ai.evaluation.report import TARGET_ERROR

    if not (asked or fits):
        return None, False
    stored = read_json(run.metrics).get("thresholds", {}) if run.metrics.is_file() else {}
    trained = read_json(run.config).get("options", {}) if run.config.is_file() else {}
    source_risk = trained.get("source_risk", 0.0)
    target = asked or source_risk or stored.get("target_error") or TARGET_ERROR
    return target, source_risk > 0


def _export(task: Task) -> tuple[list[str], bool]:
    """Write the model in other formats; what to say of it, and whether all were written."""
    if not task.options.export:
        return [], True
    from real_vs_ai.core.images import ImageError
    from real_vs_ai.evaluation.export import export_model, exports_table
    from real_vs_ai.evaluation.judging import middle_view
    from real_vs_ai.evaluation.metrics import REPORTED_SPLITS
    from real_vs_ai.models.keras_models import open_model
    from real_vs_ai.out_of_distribution.check import read_check

    model, metadata, _ = open_model(task.model, class_names=task.options.class_names)
    images = next(task.images[name] for name in REPORTED_SPLITS if name in task.images)
    paths = images.take(images.draw(_MOST_CHECKED)).paths
    views = []
    for name in paths:
        # The report names those that cannot be read.
        with suppress(ImageError):
            views.append(middle_view(images.root / name, metadata))
    results = export_model(
        model,
        formats=task.options.export,
        folder=task.model.parent / _EXPORTS,
        metadata=metadata,
        check=read_check(task.model),
        pixels=np.stack(views),
    )
    table = format_table(*exports_table(results), title="Exports")
    return [table], all(result.path for result in results)


def _find_evaluated(named: Path | None) -> Path:
    """The `.h5` file of `--model`; without one, of the run trained last, else the released one."""
    newest = newest_run() if named is None else None
    return newest.model if newest else find_model(named)


def _add_form(path: Path) -> str:
    from real_vs_ai.evaluation.export import add_openvino_form

    difference = add_openvino_form(path)
    return (
        f"{path} now holds the graph that OpenVINO runs; the largest difference of a probability "
        f"from Keras' is {difference:.1e}."
    )


def _redraw(named: Path | None) -> str:
    from real_vs_ai.evaluation.report_files import redraw_report

    folder = named if named and named.is_dir() else _find_evaluated(named).parent
    drawn = redraw_report(RunFolder(folder))
    return f"{plural(len(drawn), 'figure')} drawn again in {RunFolder(folder).figures}."


def _summary(metrics: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The metrics, what is to be said of them, and the tables that have these titles."""
    from real_vs_ai.evaluation.metrics import REPORTED_SPLITS
    from real_vs_ai.evaluation.tables import headline, report_tables

    tables = report_tables(metrics)
    title = "; ".join(
        f"{split}: " + ", ".join(f"{n:,} {name}" for name, n in metrics[split]["counts"].items())
        for split in REPORTED_SPLITS
        if split in metrics
    )
    lines = [headline(metrics, title=title), ""]
    for split, part in metrics["data"].items():
        lines += [f"Left out of {split}: {x['path']}: {x['reason']}" for x in part["unreadable"]]
    confound = metrics.get("confound") or {}
    if confound.get("warning"):
        lines += [f"Warning: {confound['warning']}", ""]
    shown = [f"{format_table(*tables[name], title=title)}\n" for name, title in titles.items()]
    return "\n".join([*lines, *metrics["notes"], *shown])
