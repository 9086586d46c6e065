"""Compute a model's predictions for labelled images, and read and write them as a table.

    predictions = predict_images(scorer, decoded, split="test", model_input=metadata.model_input)
    write_predictions(run.predictions, predictions)         # path,split,label,…,probability_Fake,…

Every metric and every figure of a report is made from this table.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.scorer import Scorer
from real_vs_ai.files import atomic_write
from real_vs_ai.model_input import ModelInput

_COLUMNS = ("path", "split", "label", "source", "width", "height")
_PROBABILITY = "probability_"


@dataclass(frozen=True)
class Predictions:
    """What a model says of labelled images, row by row.

    Attributes:
        class_names: In the order of the probabilities.
        paths: POSIX paths, relative to the folder that holds the split folders.
        splits: "validation", "test", … of each image, shape (n_images,).
        labels: Index into `class_names` of each image, shape (n_images,).
        sources: The data set each image came from, or "", shape (n_images,).
        widths: In pixels, shape (n_images,).
        heights: In pixels, shape (n_images,).
        probabilities: Uncalibrated softmax outputs, shape (n_images, n_classes), float64.
    """

    class_names: tuple[str, ...]
    paths: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, chosen: np.ndarray) -> Predictions:
        """The rows of a mask or of positions."""
        arrays = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        return Predictions(class_names=self.class_names, **arrays)

    def of_split(self, split: str) -> Predictions:
        """The rows of one split; none when it is not there."""
        return self.take(self.splits == split)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits in the order in which they first appear."""
        return tuple(dict.fromkeys(self.splits.tolist()))


_ARRAYS = ("paths", "splits", "labels", "sources", "widths", "heights", "probabilities")


def predict_images(
    scorer: Scorer, decoded: DecodedImages, *, split: str, model_input: ModelInput
) -> Predictions:
    """Ask a model about decoded images, in their order.

    Args:
        scorer: Of the model.
        decoded: The images, prepared for the model.
        split: Their split.
        model_input: Says how the probabilities of an image's crops become the image's.

    Raises:
        ValueError: There are no images, or the outputs are no softmax over the classes.
    """
    images = decoded.images
    if not len(images):
        raise InputError(
            f"Expected images that can be read in {images.root}, found none "
            f"({len(decoded.failures)} could not be read)."
        )
    outputs, _ = scorer.outputs(decoded, description=f"Scoring {split}")
    check_softmax(outputs.reshape(-1, outputs.shape[-1]), n_classes=len(images.class_names))
    probabilities = model_input.aggregate(outputs)
    parent = images.root.name
    return Predictions(
        class_names=images.class_names,
        paths=_texts(f"{parent}/{path}" for path in images.paths),
        splits=_texts([split] * len(images)),
        labels=np.asarray(images.labels, dtype=np.int64),
        sources=_texts(images.sources),
        widths=np.asarray(decoded.widths, dtype=np.int64),
        heights=np.asarray(decoded.heights, dtype=np.int64),
        probabilities=probabilities,
    )


def check_softmax(probabilities: np.ndarray, *, n_classes: int) -> None:
    """Refuse outputs that are not one probability for each class.

    Raises:
        ValueError: Wrong shape, not finite, or rows that do not sum to 1.
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
    names = [f"{_PROBABILITY}{name}" for name in predictions.class_names]
    with (
        atomic_write(path) as staging,
        staging.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, *names])
        for i in range(len(predictions)):
            # Nine digits bring every float32 back exactly.
            probabilities = [f"{value:.9g}" for value in predictions.probabilities[i]]
            writer.writerow(
                [
                    predictions.paths[i],
                    predictions.splits[i],
                    predictions.class_names[predictions.labels[i]],
                    predictions.sources[i],
                    int(predictions.widths[i]),
                    int(predictions.heights[i]),
                    *probabilities,
                ]
            )


def read_predictions(path: Path) -> Predictions:
    """Read `predictions.csv`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no table of predictions, with the line that shows it.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected predictions at {path}, found none. Run ModelEvaluation.py without --redraw."
        )
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            header, *rows = csv.reader(file)
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a table of predictions: {error or 'no rows'}.") from error
    names = [name.removeprefix(_PROBABILITY) for name in header[len(_COLUMNS) :]]
    if header != [*_COLUMNS, *(f"{_PROBABILITY}{name}" for name in names)] or len(names) < 2:
        raise InputError(
            f"Expected the columns {','.join(_COLUMNS)},{_PROBABILITY}<class>… in {path}, "
            f"found {','.join(header)[:200]}."
        )
    try:
        predictions = _from_rows(rows, class_names=tuple(names))
        check_softmax(predictions.probabilities, n_classes=len(names))
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return predictions


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """One table of several, whose classes must be the same."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    return Predictions(class_names=parts[0].class_names, **arrays)


def join_predictions(own: Predictions, files: Sequence[Path]) -> Predictions:
    """A model's validation images, and those of other tables that it has not judged itself.

    Args:
        own: Of the model itself, perhaps no rows.
        files: `predictions.csv` of other runs; an image counts in the first that names it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file has other classes, or no validation images.
    """
    parts, seen = [own], set(own.paths.tolist())
    for path in files:
        rows = read_predictions(path).of_split("validation")
        if rows.class_names != own.class_names or not len(rows):
            raise InputError(
                f"Expected validation images of the classes {', '.join(own.class_names)} in "
                f"{path}, found {len(rows)} of {', '.join(rows.class_names)}."
            )
        rows = rows.take(np.array([name not in seen for name in rows.paths.tolist()]))
        seen.update(rows.paths.tolist())
        parts.append(rows)
    return concatenate(parts)


def _from_rows(rows: Sequence[Sequence[str]], *, class_names: tuple[str, ...]) -> Predictions:
    width = len(_COLUMNS) + len(class_names)
    for line, row in enumerate(rows, start=2):
        if len(row) != width:
            raise InputError(f"line {line} has {len(row)} columns, expected {width}.")
    if not rows:
        raise InputError("no rows.")
    columns = list(zip(*rows, strict=True))
    # Through single precision, in which networks answer: nine digits are exact there.
    probabilities = np.array(columns[len(_COLUMNS) :], dtype=np.float32).T.astype(np.float64)
    return Predictions(
        class_names=class_names,
        paths=_texts(columns[0]),
        splits=_texts(columns[1]),
        labels=np.array([class_names.index(name) for name in columns[2]], dtype=np.int64),
        sources=_texts(columns[3]),
        widths=np.array(columns[4], dtype=np.int64),
        heights=np.array(columns[5], dtype=np.int64),
        probabilities=probabilities,
    )


def _texts(values) -> np.ndarray:
    # As objects: numpy's own strings would all take the longest path's room.
    return np.array(list(values), dtype=object)
