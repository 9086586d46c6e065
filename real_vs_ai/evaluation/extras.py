"""Add to a report on request: robustness, out-of-distribution images, another model, exports.

notes = add_extras(evaluation, options=options, model=model, decoded=decoded, report=report)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_vs_ai.dataset.decoded_images import DecodedImages
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
from real_vs_ai.evaluation.scorer import Scorer, predict_images
from real_vs_ai.files import read_json
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution import OutOfDistributionCheck
from real_vs_ai.reporting import format_table
from real_vs_ai.runs import RunFolder

if TYPE_CHECKING:
    import keras

# A stored table holds for these; with others its verdicts would be different ones.
_CALIBRATION = ("temperature", "thresholds", "data")


def add_robustness(
    evaluation: Evaluation,
    *,
    options: EvaluationOptions,
    scorer: Scorer,
    decoded: Mapping[str, DecodedImages],
    report: RunFolder,
) -> str | None:
    """Measure robustness if asked, else keep the report's earlier table while it still holds.

    Returns:
        A table for the terminal, or None.
    """
    if not options.robustness:
        stored = _stored("robustness", evaluation, report=report)
        if stored and stored.get("perturbations") == describe_perturbations():
            evaluation.metrics["robustness"] = stored
        return None
    split = main_split(evaluation.predictions)
    found = measure_robustness(
        scorer,
        decoded[split].images,
        split=split,
        metadata=evaluation.metadata,
        workers=options.workers,
        max_images=options.robustness_images,
    )
    evaluation.metrics["robustness"] = found
    title = f"Robustness: {found['n']:,} {split} images"
    return format_table(*robustness_table(found), title=title)


def add_collections(
    evaluation: Evaluation,
    model_path: Path,
    *,
    which: str | None,
    decoded: Mapping[str, DecodedImages],
    workers: int,
) -> str | None:
    """Judge images by collection and generator, clean and after the web.

    Args:
        evaluation: Takes the result; its thresholds are used.
        which: "test", "all" (validation too) or "none"; None for "test" where the model judges
            crops, otherwise "none".
        decoded: Images by split; only their files are looked at.

    Returns:
        A table for the terminal, or None.
    """
    metadata = evaluation.metadata
    if which is None:
        which = "test" if metadata.model_input.is_crops else "none"
    splits = {"all": ("test", "validation"), "test": ("test",)}.get(which, ())
    splits = tuple(split for split in splits if split in decoded)
    if not splits or metadata.positive_index is None:
        return None
    from real_vs_ai.serving.detector import Detector

    judge = Detector.open(model_path, for_batches=True)
    judge.metadata = metadata
    found = [
        measure_collections(judge, decoded[split].images, split=split, workers=workers)
        for split in splits
    ]
    evaluation.metrics["collections"] = found
    return "\n\n".join(
        format_table(*collections_table(part), title=f"By collection: {part['split']}")
        for part in found
    )


def add_other_images(
    evaluation: Evaluation, *, options: EvaluationOptions, scorer: Scorer, report: RunFolder
) -> str | None:
    """Judge out-of-distribution images if asked, else keep the earlier shares while they hold.

    Returns:
        A table for the terminal, or None.
    """
    if not options.out_of_distribution:
        if stored := _stored("other_images", evaluation, report=report):
            evaluation.metrics["other_images"] = stored
        return None
    found = []
    for folder in options.out_of_distribution:
        found += measure_other_images(
            scorer,
            folder,
            metadata=evaluation.metadata,
            workers=options.workers,
            max_memory_bytes=int(options.memory * 2**30),
        )
    evaluation.metrics["other_images"] = found
    images = ", ".join(f"{part['n']:,} of {part['data']}" for part in found)
    return format_table(*other_images_table(found), title=f"Images of another kind: {images}")


def _stored(key: str, evaluation: Evaluation, *, report: RunFolder) -> Any:
    """An earlier result of the report, if it was measured with the same calibration and data."""
    stored = read_json(report.metrics) if report.metrics.is_file() else {}
    same = all(stored.get(name) == evaluation.metrics[name] for name in _CALIBRATION)
    return stored.get(key) if same else None


def add_exports(
    evaluation: Evaluation,
    *,
    formats: Sequence[str],
    model: keras.Model,
    check: OutOfDistributionCheck | None,
    decoded: Mapping[str, DecodedImages],
    folder: Path,
) -> tuple[str | None, bool]:
    """Write the model in other formats.

    Returns:
        A table for the terminal (or None when none was asked for), and whether all were written.
    """
    from real_vs_ai.evaluation.export import export_model

    if not formats:
        return None, True
    split = main_split(evaluation.predictions)
    results = export_model(
        model,
        formats=formats,
        folder=folder,
        metadata=evaluation.metadata,
        check=check,
        pixels=decoded[split].inputs,
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
    return format_table(headers, rows, title="Exports"), all(r.path for r in results)


def add_comparison(
    evaluation: Evaluation,
    *,
    scorer: Scorer,
    metadata: ModelMetadata,
    decoded: Mapping[str, DecodedImages],
    path: Path,
) -> str:
    """Judge the same images with another model, and put the comparison into the metrics.

    Args:
        evaluation: Of the first model; everything else is of the second one.
        decoded: The same images at the second one's size.

    Returns:
        A table for the terminal.

    Raises:
        InputError: The second model has other classes.
    """
    if metadata.class_names != evaluation.metadata.class_names:
        raise InputError(
            f"Expected a model of the classes {', '.join(evaluation.metadata.class_names)} to "
            f"compare with, found {', '.join(metadata.class_names)} in {path}."
        )
    others = [
        predict_images(scorer, decoded[split], split=split, model_input=metadata.model_input)
        for split in evaluation.predictions.split_names
    ]
    run = RunFolder(path.parent)
    name = run.name if path == run.model else path.stem
    compared = compare_models(evaluation.predictions, others, name=name)
    evaluation.metrics["comparison"] = compared
    return format_table(*comparison_table(compared), title=f"Accuracy compared with {name}")
