"""Read the command line of ModelEvaluation.py, and write the report folder that it asks for.

TensorFlow, Matplotlib and scikit-learn are imported after the checks, which then answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from real_vs_ai.cli import add_fields, make_parser, number, option
from real_vs_ai.config import DATA_DIR, canonical_split
from real_vs_ai.dataset.decoded_images import find_splits
from real_vs_ai.dataset.labelled_images import (
    LabelledImages,
    fingerprint_images,
    list_labelled_images,
)
from real_vs_ai.errors import InputError
from real_vs_ai.files import read_json
from real_vs_ai.model_file import ModelFileError, read_metadata
from real_vs_ai.reporting import format_table, plural
from real_vs_ai.runs import RunFolder, find_model

if TYPE_CHECKING:
    import keras

    from real_vs_ai.evaluation.report import Evaluation
    from real_vs_ai.serving.detector import Detector

EXPORT_FORMATS = ("compact", "onnx")
_EXPORTS = "exports"
_EVALUATIONS = "evaluations"
# Exported files are checked on so many images.
_MOST_CHECKED = 200


@dataclass(frozen=True)
class EvaluationOptions:
    """What an evaluation is asked to do; each option says what it means."""

    model: Path | None = option(
        "run folder or .h5 file (default: the newest finished run, else the released model)",
        metavar="PATH",
        type=Path,
    )
    data: Path = option(
        "class folders, or a folder with validation/ and test/ that have them", DATA_DIR, "DIR"
    )
    output: Path | None = option(
        "folder of the report (default: the run's folder for its own data, evaluations/<data> in "
        "it for other data)",
        metavar="DIR",
        type=Path,
    )
    overwrite: bool = option("replace a report that is there", False)
    redraw: bool = option(
        "draw the figures of a report again, from its predictions.csv; needs no model", False
    )
    openvino: bool = option(
        "write into the model's file the graph that OpenVINO runs, and do nothing else: for a file "
        "made elsewhere or by an earlier version; needs no data",
        False,
    )
    target_error: float | None = option(
        "fit the Uncertain band on validation so that at most this share of certain verdicts "
        "is wrong (default: 0.05)",
        metavar="RATE",
        type=number(0, 0.5, ends=False),
    )
    robustness: bool = option(
        "also judge the images after recompression, resizing, blur and other changes", False
    )
    out_of_distribution: tuple[Path, ...] = option(
        "also judge labelled images of another kind: how many the model recognises as "
        "out-of-distribution, and how many get a certain but wrong verdict",
        metavar="DIR",
        nargs="+",
        type=Path,
    )
    export: tuple[str, ...] = option(
        f"also write the model as {', '.join(EXPORT_FORMATS)}, each checked against the HDF5 file",
        metavar="FORMAT",
        nargs="+",
        choices=EXPORT_FORMATS,
    )
    compare: Path | None = option(
        "test whether this model and another one err differently on the same images",
        metavar="MODEL",
        type=Path,
    )
    class_names: tuple[str, ...] | None = option(
        "classes of a model made elsewhere, in the order of its outputs", metavar="NAME", nargs="+"
    )
    workers: int = option(shared="--workers")


def parse_evaluation_options(
    argv: Sequence[str] | None, *, description: str | None
) -> EvaluationOptions:
    """Read the command line of ModelEvaluation.py.

    Raises:
        SystemExit: Wrong usage (code 2), or --help.
    """
    parser = make_parser(description)
    add_fields(parser, EvaluationOptions)
    values = vars(parser.parse_args(argv))
    if values["class_names"] and len(set(values["class_names"])) < 2:
        parser.error("--class-names needs two names or more, each different")
    values["class_names"] = tuple(values["class_names"]) if values["class_names"] else None
    for name in ("export", "out_of_distribution"):
        values[name] = tuple(dict.fromkeys(values[name] or ()))
    return EvaluationOptions(**values)


def run_evaluation(options: EvaluationOptions) -> tuple[str, bool]:
    """Do what the options ask for.

    Returns:
        A text for the terminal, and whether everything asked for was written.

    Raises:
        FileNotFoundError: There is no such model or data.
        InputError: Model and data do not fit.
        FileExistsError: Another report would be replaced.
    """
    if options.redraw:
        return _redraw(options.output or options.model), True
    path = find_model(options.model)
    if options.openvino:
        return _add_form(path), True
    second = find_model(options.compare) if options.compare else None
    class_names = _class_names(path, options.class_names)
    folders = options.out_of_distribution
    others = [(folder.resolve().name, _list_splits(folder, class_names)) for folder in folders]
    images = _list_splits(options.data, class_names)
    run = RunFolder(path.parent)
    # Another file in the run's folder has nothing to do with its report.
    own = path == run.model and _is_own_data(run, images, data=options.data)
    report = RunFolder(options.output or _default_output(path, data=options.data, own=own))
    refreshes_run = report.path.resolve() == run.path.resolve()
    if report.metrics.is_file() and not (options.overwrite or (own and refreshes_run)):
        raise FileExistsError(
            f"{report.path} holds a report. Name another folder by --output, or give --overwrite."
        )
    from real_vs_ai.evaluation.extras import add_extras
    from real_vs_ai.evaluation.judging import open_detector
    from real_vs_ai.evaluation.report import evaluate_model, store_in_model, write_evaluation
    from real_vs_ai.keras_models import open_model

    model, metadata, has_metadata = open_model(path, class_names=options.class_names)
    fits = own or not metadata.calibrated
    target, by_source = _choose_target(options.target_error, run, fits=fits)
    compared = second and _open_compared(second, metadata.class_names)
    detector = open_detector(path, metadata)
    evaluation = evaluate_model(
        detector,
        images,
        left_out={},
        target_error=target,
        by_source=by_source,
        workers=options.workers,
    )
    titles = add_extras(
        evaluation,
        detector,
        stored=read_json(report.metrics) if report.metrics.is_file() else {},
        robustness=options.robustness,
        others=others,
        compared=compared,
        workers=options.workers,
    )
    stored = [store_in_model(path, evaluation)] if refreshes_run or not has_metadata else []
    write_evaluation(report, evaluation, model=model)
    exports, complete = _export(options.export, path, model, evaluation)
    notes = [*stored, *exports, f"The report is in {report.path}."]
    return "\n".join([_summary(evaluation.metrics, titles), *notes]), complete


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


def _class_names(path: Path, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The classes that the model's file names, otherwise those given."""
    try:
        return read_metadata(path).class_names
    except ModelFileError:
        # `open_model` says what is missing, if it is.
        return given


def _list_splits(data: Path, class_names: tuple[str, ...] | None) -> dict[str, LabelledImages]:
    return {
        split: list_labelled_images(folder, class_names=class_names)
        for split, folder in find_splits(data).items()
    }


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


def _export(
    formats: Sequence[str], path: Path, model: keras.Model, evaluation: Evaluation
) -> tuple[list[str], bool]:
    """Write the model in other formats; what to say of it, and whether all were written."""
    if not formats:
        return [], True
    from real_vs_ai.evaluation.export import export_model, exports_table
    from real_vs_ai.evaluation.judging import middle_view
    from real_vs_ai.out_of_distribution.check import read_check

    metadata, images = evaluation.metadata, evaluation.main.images
    paths = images.take(images.draw(_MOST_CHECKED)).paths
    results = export_model(
        model,
        formats=formats,
        folder=path.parent / _EXPORTS,
        metadata=metadata,
        check=read_check(path),
        pixels=np.stack([middle_view(images.root / name, metadata) for name in paths]),
    )
    table = format_table(*exports_table(results), title="Exports")
    return [f"{table}\n"], all(result.path for result in results)


def _is_own_data(run: RunFolder, images: Mapping[str, LabelledImages], *, data: Path) -> bool:
    """Whether these are the images that the run was trained and reported with."""
    if run.metrics.is_file():
        return _is_reported(run, images)
    if run.config.is_file():
        trained_on = read_json(run.config).get("options", {}).get("data")
        return trained_on is not None and Path(trained_on).resolve() == data.resolve()
    return False


def _is_reported(report: RunFolder, images: Mapping[str, LabelledImages]) -> bool:
    """Whether a finished report is on these images, less those that it could not read."""
    found = {}
    data = read_json(report.metrics).get("data", {})
    for split, some in images.items():
        unreadable = {one["path"] for one in data.get(split, {}).get("unreadable", ())}
        kept = [i for i, path in enumerate(some.paths) if path not in unreadable]
        found[split] = fingerprint_images(some.take(kept))
    # The training images are only counted.
    evaluated = (data.keys() | found.keys()) - {"train"}
    return all(data.get(s, {}).get("fingerprint") == found.get(s) for s in evaluated)


def _default_output(path: Path, *, data: Path, own: bool) -> Path:
    """Where the report on a model's file goes when nobody says: its run's folder, or one in it."""
    run = RunFolder(path.parent)
    if own:
        return run.path
    resolved = data.resolve()
    is_split = canonical_split(resolved.name) and resolved.parent.name
    name = f"{resolved.parent.name}-{resolved.name}" if is_split else resolved.name
    # Several model files may share a folder, so its name tells their reports apart.
    prefix = "" if path == run.model else f"{path.stem}-"
    return run.path / _EVALUATIONS / (re.sub(r"[^\w.-]+", "-", prefix + name) or "data")


def _add_form(path: Path) -> str:
    from real_vs_ai.evaluation.export import add_openvino_form

    difference = add_openvino_form(path)
    return (
        f"{path} now holds the graph that OpenVINO runs; the largest difference of a probability "
        f"from Keras' is {difference:.1e}."
    )


def _redraw(named: Path | None) -> str:
    from real_vs_ai.evaluation.report import redraw_report

    folder = named if named and named.is_dir() else find_model(named).parent
    drawn = redraw_report(RunFolder(folder))
    return f"{plural(len(drawn), 'figure')} drawn again in {RunFolder(folder).figures}."


def _summary(metrics: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The metrics, what is to be said of them, and the tables that have these titles."""
    from real_vs_ai.evaluation.metrics import REPORTED_SPLITS
    from real_vs_ai.evaluation.tables import report_tables

    tables = report_tables(metrics)
    title = "; ".join(
        f"{split}: " + ", ".join(f"{n:,} {name}" for name, n in metrics[split]["counts"].items())
        for split in REPORTED_SPLITS
        if split in metrics
    )
    lines = [format_table(*tables["results"], title=title), ""]
    for split, part in metrics["data"].items():
        lines += [f"Left out of {split}: {x['path']}: {x['reason']}" for x in part["unreadable"]]
    confound = metrics.get("confound") or {}
    if confound.get("warning"):
        lines += [f"Warning: {confound['warning']}", ""]
    shown = [f"{format_table(*tables[name], title=title)}\n" for name, title in titles.items()]
    return "\n".join([*lines, *metrics["notes"], *shown])
