"""Read and write predictions.csv: a model's verdicts on labelled images.

Every metric and every figure of a report is counted from this table: it holds the label and the
reason that `serving.judge` gives for each file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from real_vs_ai.core.config import UNCERTAIN, positive_index
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import read_table, table_columns, write_table
from real_vs_ai.models.model_file import calibrate
from real_vs_ai.verdicts.verdict import OUT_OF_DISTRIBUTION, UNDECIDED

_COLUMNS = ("path", "split", "label", "source", "width", "height", "verdict", "reason")
_PROBABILITY = "probability_"


@dataclass(frozen=True)
class Predictions:
    """A model's answers, row by row; every array has n_images rows.

    Attributes:
        class_names: In the order of the probabilities.
        paths: POSIX paths, relative to the folder that holds the split folders.
        splits: "validation", "test", … of each image.
        labels: Index into `class_names` of each image.
        sources: The data set each image came from, or "".
        widths: In pixels.
        heights: In pixels.
        verdicts: A class name or "Uncertain".
        reasons: Code of the verdict's first `Reason`, or "".
        probabilities: Uncalibrated softmax outputs, shape (n_images, n_classes), float64.
        temperature: Calibrates them, with the offset; the table on disk does not hold these.
        offset: As in `model_file.ModelMetadata`.
    """

    class_names: tuple[str, ...]
    paths: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    verdicts: np.ndarray
    reasons: np.ndarray
    probabilities: np.ndarray
    temperature: float = 1.0
    offset: float = 0.0

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name, in the order of the table on disk."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def take(self, chosen: np.ndarray) -> Predictions:
        """The rows of a mask or of positions."""
        return replace(self, **{name: column[chosen] for name, column in self.columns.items()})

    def of_split(self, split: str) -> Predictions:
        """The rows of one split; none when it is not there."""
        return self.take(self.splits == split)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits in the order in which they first appear."""
        return tuple(dict.fromkeys(self.splits.tolist()))

    @property
    def positive_index(self) -> int | None:
        """Index of the Fake class where the other one is Real, otherwise None."""
        return positive_index(self.class_names)

    @property
    def decided(self) -> np.ndarray:
        """Class of each verdict, UNDECIDED of Uncertain ones, shape (n,), int64."""
        index = {name: position for position, name in enumerate(self.class_names)}
        decisions = [index.get(verdict, UNDECIDED) for verdict in self.verdicts]
        return np.array(decisions, dtype=np.int64)

    @property
    def calibrated(self) -> np.ndarray:
        """Calibrated probabilities, shape (n_images, n_classes), float64."""
        fitted = {"temperature": self.temperature, "offset": self.offset}
        return calibrate(self.probabilities, **fitted, positive=self.positive_index or 0)

    @property
    def is_right(self) -> np.ndarray:
        """Whether each image's class of highest probability is its own, shape (n,), bool."""
        return self.calibrated.argmax(axis=1) == self.labels

    @property
    def out_of_distribution(self) -> np.ndarray:
        """Which images are out-of-distribution: no thresholds give them a verdict; (n,), bool."""
        return np.isin(self.reasons.astype(str), list(OUT_OF_DISTRIBUTION))


def check_softmax(probabilities: np.ndarray, *, n_classes: int) -> None:
    """Refuse outputs that are not one probability for each class.

    Raises:
        InputError: Wrong shape, not finite, or rows that do not sum to 1.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] != n_classes:
        raise InputError(
            f"Expected one output for each of the {n_classes} classes, found outputs of shape "
            f"{probabilities.shape}. Name the model's classes with --class-names."
        )
    if not np.all(np.isfinite(probabilities)):
        raise InputError("Expected probabilities, found NaN: the model's training has diverged.")
    if np.any(probabilities < 0) or np.max(np.abs(probabilities.sum(axis=1) - 1)) > 0.01:
        raise InputError(
            "Expected softmax outputs (each row sums to 1), found "
            f"{np.round(probabilities[0], 3).tolist()}. End the model in a softmax layer."
        )


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write the table as CSV; a killed process leaves the old file or the new one."""
    names = predictions.class_names
    columns = (column.tolist() for column in predictions.columns.values())
    rows = (
        # Nine digits bring every float32 back exactly.
        [path, split, names[label], *more, *(f"{value:.9g}" for value in outputs)]
        for path, split, label, *more, outputs in zip(*columns, strict=True)
    )
    write_table(path, (*_COLUMNS, *(f"{_PROBABILITY}{name}" for name in names)), rows)


def read_predictions(path: Path) -> Predictions:
    """Read `predictions.csv`.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is not a table of predictions, or it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected predictions at {path}, found none. Run ModelEvaluation.py without --redraw."
        )
    columns = [name for name in table_columns(path) if name.startswith(_PROBABILITY)]
    if len(columns) < 2:
        raise InputError(f"{path} is not a table of predictions: no columns {_PROBABILITY}<class>.")
    class_names = tuple(name.removeprefix(_PROBABILITY) for name in columns)
    rows = list(read_table(path, (*_COLUMNS, *columns)))
    try:
        if not rows:
            raise InputError("no rows")
        texts = map(as_texts, zip(*rows, strict=True))
        paths, splits, labels, sources, widths, heights, verdicts, reasons, *outputs = texts
        if unknown := set(verdicts) - {*class_names, UNCERTAIN}:
            raise InputError(f"{min(unknown)!r} is no verdict")
        indices = np.array([class_names.index(label) for label in labels], dtype=np.int64)
        # Through single precision, in which networks answer: nine digits are exact there.
        probabilities = np.stack(outputs, axis=1).astype(np.float32).astype(np.float64)
        check_softmax(probabilities, n_classes=len(class_names))
        return Predictions(
            class_names,
            paths,
            splits,
            indices,
            sources,
            widths.astype(np.int64),
            heights.astype(np.int64),
            verdicts,
            reasons,
            probabilities,
        )
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def as_texts(values: Iterable[str]) -> np.ndarray:
    """Texts as objects: numpy's own strings would all take the longest one's room."""
    return np.array(list(values), dtype=object)


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """One table of several, whose classes must be the same."""
    columns = [part.columns for part in parts]
    joined: dict[str, Any] = {n: np.concatenate([c[n] for c in columns]) for n in columns[0]}
    return replace(parts[0], **joined)
