"""Add to a report on request: robustness, out-of-distribution images, another model, exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_vs_ai.dataset.decoded_images import DecodedImages, decode_splits, find_splits
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.metrics import compare_models, comparison_table
from real_vs_ai.evaluation.options import EvaluationOptions
from real_vs_ai.evaluation.out_of_distribution import measure_other_images, other_images_table
from real_vs_ai.evaluation.report import Evaluation
from real_vs_ai.evaluation.report_figures import main_split
from real_vs_ai.evaluation.robustness import (
    collections_table,
    describe_perturbations,
    measure_collections,
    measure_robustness,
    robustness_table,
)
from real_vs_ai.evaluation.scorer import Scorer, open_scorer, predict_images
from real_vs_ai.files import read_json
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.reporting import format_table
from real_vs_ai.runs import RunFolder, find_model

if TYPE_CHECKING:
    import keras

# A stored table holds for these; with others its verdicts would be different ones.
_CALIBRATION = ("temperature", "thresholds", "data", "input")


@dataclass(frozen=True)
class Job:
    """What the extras of a report are made from.

    Attributes:
        decoded: Images by split.
        report: The report's folder; tables of an earlier report in it may still hold.
    """

    options: EvaluationOptions
    model: keras.Model
    model_path: Path
    scorer: Scorer
    decoded: Mapping[str, DecodedImages]
    report: RunFolder


def add_extras(evaluation: Evaluation, job: Job) -> list[str]:
    """Add to the metrics what was asked for beyond them, and return tables for the terminal."""
    extras = (add_robustness, add_other_images, add_comparison, add_collections)
    return [f"{table}\n" for add in extras if (table := add(evaluation, job))]


def add_robustness(evaluation: Evaluation, job: Job) -> str | None:
    """Measure robustness if asked, else keep the report's earlier table while it still holds."""
    if not job.options.robustness:
        stored = _stored("robustness", evaluation, report=job.report)
        if stored and stored.get("perturbations") == describe_perturbations():
            evaluation.metrics["robustness"] = stored
        return None
    split = main_split(evaluation.predictions)
    found = measure_robustness(
        job.scorer,
        job.decoded[split].images,
        split=split,
        metadata=evaluation.metadata,
        workers=job.options.workers,
        max_images=job.options.robustness_images,
    )
    evaluation.metrics["robustness"] = found
    title = f"Robustness: {found['n']:,} {split} images"
    return format_table(*robustness_table(found), title=title)


def add_collections(evaluation: Evaluation, job: Job) -> str | None:
    """Judge images by collection and generator, clean and after the web."""
    metadata, which = evaluation.metadata, job.options.by_collection
    if which is None:
        which = "test" if metadata.model_input.is_crops else "none"
    wanted = {"all": ("test", "validation"), "test": ("test",)}.get(which, ())
    splits = [split for split in wanted if split in job.decoded]
    if not splits or metadata.positive_index is None:
        return None
    from real_vs_ai.serving.detector import Detector

    judge = Detector.open(job.model_path, for_batches=True)
    judge.metadata = metadata
    found = [
        measure_collections(
            judge, job.decoded[split].images, split=split, workers=job.options.workers
        )
        for split in splits
    ]
    evaluation.metrics["collections"] = found
    return "\n\n".join(
        format_table(*collections_table(part), title=f"By collection: {part['split']}")
        for part in found
    )


def add_other_images(evaluation: Evaluation, job: Job) -> str | None:
    """Judge out-of-distribution images if asked, else keep the earlier shares while they hold."""
    options = job.options
    if not options.out_of_distribution:
        changed = options.check_from or options.fit_out_of_distribution
        stored = _stored("other_images", evaluation, report=job.report)
        if stored and not changed:
            evaluation.metrics["other_images"] = stored
        return None
    found = []
    for folder in options.out_of_distribution:
        found += measure_other_images(
            job.scorer,
            folder,
            metadata=evaluation.metadata,
            workers=options.workers,
            max_memory_bytes=options.max_memory_bytes,
        )
    evaluation.metrics["other_images"] = found
    images = ", ".join(f"{part['n']:,} of {part['data']}" for part in found)
    return format_table(*other_images_table(found), title=f"Images of another kind: {images}")


def _stored(key: str, evaluation: Evaluation, *, report: RunFolder) -> Any:
    """An earlier result of the report, if it was measured with the same calibration and data."""
    stored = read_json(report.metrics) if report.metrics.is_file() else {}
    same = all(stored.get(name) == evaluation.metrics.get(name) for name in _CALIBRATION)
    return stored.get(key) if same else None


def add_exports(evaluation: Evaluation, job: Job, *, folder: Path) -> tuple[list[str], bool]:
    """Write the model in other formats; a table for the terminal, and whether all were written."""
    from real_vs_ai.evaluation.export import export_model

    if not job.options.export:
        return [], True
    results = export_model(
        job.model,
        formats=job.options.export,
        folder=folder,
        metadata=evaluation.metadata,
        check=job.scorer.check,
        pixels=job.decoded[main_split(evaluation.predictions)].inputs,
    )
    rows = [
        [
            r.name,
            r.path.as_posix() if r.path else f"not written: {r.error}",
            r.n,
            "" if r.difference is None else f"{r.difference:.1e}",
        ]
        for r in results
    ]
    headers = ["format", "file", "checked on", "largest difference"]
    return [f"{format_table(headers, rows, title='Exports')}\n"], all(r.path for r in results)


def add_comparison(evaluation: Evaluation, job: Job) -> str | None:
    """Judge the same images with another model, and put the comparison into the metrics.

    Raises:
        InputError: The other model has other classes.
    """
    from real_vs_ai.keras_models import open_model

    options, decoded = job.options, job.decoded
    if not options.compare:
        return None
    path = find_model(options.compare)
    model, metadata, _ = open_model(
        path, class_names=options.class_names, image_size=options.image_size
    )
    if metadata.class_names != evaluation.metadata.class_names:
        raise InputError(
            f"Expected a model of the classes {', '.join(evaluation.metadata.class_names)} to "
            f"compare with, found {', '.join(metadata.class_names)} in {path}."
        )
    if metadata.model_input != evaluation.metadata.model_input:
        decoded = decode_data(options, metadata)
    scorer = open_scorer(model, path, layer=None)
    others = [
        predict_images(scorer, decoded[split], split=split, model_input=metadata.model_input)
        for split in evaluation.predictions.split_names
    ]
    run = RunFolder(path.parent)
    name = run.name if path == run.model else path.stem
    compared = compare_models(evaluation.predictions, others, name=name)
    evaluation.metrics["comparison"] = compared
    return format_table(*comparison_table(compared), title=f"Accuracy compared with {name}")


def decode_data(options: EvaluationOptions, metadata: ModelMetadata) -> dict[str, DecodedImages]:
    """The images of `--data` by split, prepared for a model."""
    return decode_splits(
        find_splits(options.data),
        metadata=metadata,
        workers=options.workers,
        max_memory_bytes=options.max_memory_bytes,
    )
