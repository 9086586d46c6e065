"""Plan an evaluation: find the model, the images and the folder of the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_vs_ai.core.config import canonical_split
from real_vs_ai.core.files import read_json
from real_vs_ai.core.transactions import finish_replacing
from real_vs_ai.dataset.decoded_images import find_splits
from real_vs_ai.dataset.labelled_images import (
    LabelledImages,
    fingerprint_images,
    list_labelled_images,
)
from real_vs_ai.evaluation.options import EvaluationOptions
from real_vs_ai.models.model_file import ModelFileError, ModelMetadata, read_metadata
from real_vs_ai.models.runs import RunFolder, find_model
from real_vs_ai.verdicts.verdict import thresholds_of, uncertain_range

_EVALUATIONS = "evaluations"


@dataclass(frozen=True)
class Task:
    """What is evaluated on which images, and where its report goes.

    Attributes:
        images: By split.
        others: Images of another kind: their name, and by split.
        own: Whether the images are those that the run was trained and reported with.
        refreshes_run: Whether the report is the run's own.
        stored: `metrics.json` of the report that is there, or {}.
    """

    options: EvaluationOptions
    model: Path
    compared: Path | None
    images: Mapping[str, LabelledImages]
    others: Sequence[tuple[str, Mapping[str, LabelledImages]]]
    run: RunFolder
    report: RunFolder
    own: bool
    refreshes_run: bool
    stored: Mapping[str, Any]

    @property
    def adds_to_report(self) -> bool:
        """Whether the report that is there stays, as it says the same of this model and images."""
        if self.options.overwrite or not (self.own and self.refreshes_run and self.stored):
            return False
        asked, target = self.options.target_error, self.stored["thresholds"].get("target_error")
        return asked in (None, target) and _describes(self.stored, read_metadata(self.model))

    @property
    def asks_for_more(self) -> bool:
        """Whether something is to be measured that the report does not hold."""
        options, test = self.options, self.stored.get("test", {})
        return bool(options.robustness or self.others or self.compared) or (
            # Of photographs also what ModelEvaluation.py measures unasked.
            self.stored.get("input", {}).get("kind") == "crops"
            and "clean" in test.get("conditions", ())
            and "web" not in test["conditions"]
        )


def plan_evaluation(options: EvaluationOptions, path: Path) -> Task:
    """Find everything that an evaluation reads, and the folder that it writes."""
    compared = find_model(options.compare) if options.compare else None
    class_names = _class_names(path, options.class_names)
    folders = options.out_of_distribution
    others = [(folder.resolve().name, _list_splits(folder, class_names)) for folder in folders]
    images = _list_splits(options.data, class_names)
    run = RunFolder(path.parent)
    # Another file in the run's folder has nothing to do with its report.
    own = path == run.model and _is_own_data(run, images, data=options.data)
    report = RunFolder(options.output or _default_output(path, data=options.data, own=own))
    return Task(
        options=options,
        model=path,
        compared=compared,
        images=images,
        others=others,
        run=run,
        report=report,
        own=own,
        refreshes_run=report.path.resolve() == run.path.resolve(),
        stored=read_report(report),
    )


def read_report(report: RunFolder) -> Mapping[str, Any]:
    """The contents of `metrics.json`, {} without a report."""
    finish_replacing(report.path)
    return read_json(report.metrics) if report.metrics.is_file() else {}


def _describes(stored: Mapping[str, Any], metadata: ModelMetadata) -> bool:
    """Whether a report is of the model file with these metadata."""
    test = {k: v for k, v in stored.get("test", {}).items() if not k.startswith("per_")}
    bands = (uncertain_range(one) for one in (stored["thresholds"], thresholds_of(metadata)))
    return (
        len(set(bands)) == 1
        and stored["temperature"] == metadata.temperature
        and test == metadata.metrics
    )


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
    fingerprints = {}
    data = read_json(report.metrics).get("data", {})
    for split, some in images.items():
        unreadable = {one["path"] for one in data.get(split, {}).get("unreadable", ())}
        kept = [i for i, path in enumerate(some.paths) if path not in unreadable]
        fingerprints[split] = fingerprint_images(some.take(kept))
    # The training images are only counted.
    evaluated = (data.keys() | fingerprints.keys()) - {"train"}
    return all(data.get(s, {}).get("fingerprint") == fingerprints.get(s) for s in evaluated)


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
