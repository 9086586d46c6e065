"""Read run folders for the Models page, also while they are written; no Streamlit here.

A file that is missing, damaged or half written gives what can be read of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real_vs_ai import runs
from real_vs_ai.files import list_folders
from real_vs_ai.runs import RunFolder

# Text files of a run are small; a larger one is not what its name says.
_MOST_BYTES = 20 * 2**20
_MOST_FIGURES = 60
_VALIDATION_PREFIX = "val_"
# Columns of history.csv that are no curves.
_NOT_CURVES = frozenset({"epoch", "stage", "learning_rate", "seconds", "images_per_second"})


@dataclass(frozen=True)
class Metric:
    """A metric and its 95 % interval; `low` and `high` are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LearningCurve:
    """One quantity over the epochs; shapes (n_epochs,), NaN where an epoch has no number."""

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)


def unfinished_runs(models_dir: Path) -> list[RunFolder]:
    """Runs that have begun and have no final metrics yet, newest first."""
    folders = map(RunFolder, list_folders(models_dir))
    begun = [run for run in folders if run.history.is_file() and not run.metrics.is_file()]
    return sorted(begun, key=lambda run: run.history.stat().st_mtime, reverse=True)


def read_metrics(run: RunFolder) -> dict[str, dict[str, Metric]]:
    """The metrics of each split, in the file's order; {} when there are none."""
    try:
        document = json.loads(read_text(run.metrics))
    except ValueError:
        return {}
    if not isinstance(document, Mapping):
        return {}
    splits = {}
    for split in ("test", "validation", "train"):
        entries = document.get(split)
        if isinstance(entries, Mapping):
            found = {str(name): _metric(entry) for name, entry in entries.items()}
            splits[split] = {name: metric for name, metric in found.items() if metric}
    return {split: metrics for split, metrics in splits.items() if metrics}


def read_history(path: Path) -> dict[str, LearningCurve]:
    """The curves of `history.csv` by name, training and validation paired."""
    curves: dict[str, LearningCurve] = {}
    for column, values in runs.read_history(path, strict=False).items():
        if column.casefold() in _NOT_CURVES or all(map(math.isnan, values)):
            continue
        name = column.removeprefix(_VALIDATION_PREFIX)
        curve = curves.setdefault(name, LearningCurve())
        (curve.validation if name != column else curve.training).extend(values)
    return curves


def list_figures(run: RunFolder) -> list[Path]:
    """The run's pictures, sorted by name."""
    if not run.figures.is_dir():
        return []
    return sorted(p for p in run.figures.glob("*.png") if p.is_file())[:_MOST_FIGURES]


def read_text(path: Path) -> str:
    """A small text file's content, or "" when there is none that can be read."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", "�")
    except OSError:
        return ""


def _metric(entry: Any) -> Metric | None:
    if isinstance(entry, Mapping):
        value, low, high = (_number(entry.get(key)) for key in ("value", "low", "high"))
        has_interval = not (math.isnan(low) or math.isnan(high))
        interval = (low, high) if has_interval else (None, None)
        return None if math.isnan(value) else Metric(value, *interval)
    value = _number(entry)
    return None if math.isnan(value) else Metric(value)


def _number(text: Any) -> float:
    if isinstance(text, bool) or text is None:
        return math.nan
    try:
        return float(text)
    except (TypeError, ValueError, OverflowError):
        return math.nan
