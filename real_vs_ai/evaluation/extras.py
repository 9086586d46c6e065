"""Add to a report on request: robustness, out-of-distribution images, another model, exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_vs_ai.dataset.decoded_images import decode_images
from real_vs_ai.evaluation.by_collection import collections_table, measure_collections
from real_vs_ai.evaluation.judging import judge_split, open_detector
from real_vs_ai.evaluation.metrics import compare_models, comparison_table
from real_vs_ai.evaluation.other_images import measure_other_images, other_images_table
from real_vs_ai.evaluation.report import Evaluation
from real_vs_ai.evaluation.robustness import (
    describe_perturbations,
    measure_robustness,
    robustness_table,
)
from real_vs_ai.files import read_json
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import read_check
from real_vs_ai.reporting import format_table
from real_vs_ai.runs import RunFolder, model_name
from real_vs_ai.serving.detector import Detector

if TYPE_CHECKING:
    import keras

# A stored table holds for these; with others its verdicts would be different ones.
_CALIBRATION = ("temperature", "thresholds", "data", "input")
# The libraries' files are checked on so many images.
_CHECKED_IMAGES = 200
_CHECKED_BYTES = 2**28


def add_robustness(evaluation: Evaluation, detector: Detector, *, workers: int) -> str:
    """Measure how verdicts hold when images are changed."""
    main = evaluation.main
    found = measure_robustness(
        detector.with_metadata(evaluation.metadata), main.images, split=main.split, workers=workers
    )
    evaluation.metrics["robustness"] = found
    title = f"Robustness: {found['n']:,} {main.split} images"
    return format_table(*robustness_table(found), title=title)


def add_collections(evaluation: Evaluation, detector: Detector, *, workers: int) -> str | None:
    """Judge a photograph model's test images by collection and generator, also after the web."""
    metadata = evaluation.metadata
    test = evaluation.judged.get("test")
    if test is None or metadata.positive_index is None or not metadata.model_input.is_crops:
        return None
    judge = detector.with_metadata(metadata)
    found = measure_collections(judge, test.images, split=test.split, workers=workers)
    evaluation.metrics["collections"] = [found]
    return format_table(*collections_table(found), title=f"By collection: {test.split}")


def add_other_images(
    evaluation: Evaluation, detector: Detector, folders: Sequence[Path], *, workers: int
) -> str:
    """Judge images of another kind."""
    judge = detector.with_metadata(evaluation.metadata)
    found = [
        part for folder in folders for part in measure_other_images(judge, folder, workers=workers)
    ]
    evaluation.metrics["other_images"] = found
    images = ", ".join(f"{part['n']:,} of {part['data']}" for part in found)
    return format_table(*other_images_table(found), title=f"Images of another kind: {images}")


def keep_extras(evaluation: Evaluation, report: RunFolder) -> None:
    """Keep what an earlier report measured with the same calibration on the same data."""
    stored = read_json(report.metrics) if report.metrics.is_file() else {}
    if any(stored.get(name) != evaluation.metrics.get(name) for name in _CALIBRATION):
        return
    kept: dict[str, Any] = {name: stored.get(name) for name in ("robustness", "other_images")}
    if (kept["robustness"] or {}).get("perturbations") != describe_perturbations():
        kept["robustness"] = None
    evaluation.metrics.update({name: part for name, part in kept.items() if part})


def add_comparison(
    evaluation: Evaluation, path: Path, metadata: ModelMetadata, *, workers: int
) -> str:
    """Judge the same images with another model, and put the comparison into the metrics.

    Args:
        path: Of the other model's file.
        metadata: Of the other model, of the same classes.
    """
    detector = open_detector(path, metadata)
    others = [
        judge_split(detector, part.images, split=split, workers=workers).rows(metadata)
        for split, part in evaluation.judged.items()
    ]
    compared = compare_models(evaluation.predictions, others, name=model_name(path))
    evaluation.metrics["comparison"] = compared
    return format_table(
        *comparison_table(compared), title=f"Accuracy compared with {compared['model']}"
    )


def add_exports(
    evaluation: Evaluation,
    model: keras.Model,
    model_path: Path,
    formats: Sequence[str],
    *,
    folder: Path,
    workers: int,
) -> tuple[str, bool]:
    """Write the model in other formats; a table for the terminal, and whether all were written."""
    from real_vs_ai.evaluation.export import export_model

    images = evaluation.main.images
    checked = decode_images(
        images.take(images.draw(_CHECKED_IMAGES)),
        model_input=evaluation.metadata.model_input,
        workers=workers,
        max_memory_bytes=_CHECKED_BYTES,
    )
    results = export_model(
        model,
        formats=formats,
        folder=folder,
        metadata=evaluation.metadata,
        check=read_check(model_path),
        pixels=checked.inputs,
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
    return f"{format_table(headers, rows, title='Exports')}\n", all(r.path for r in results)
