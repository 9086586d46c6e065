"""Turn scores into rows of a table and lines for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.verdict import Reason, ReasonCode, thresholds_of

if TYPE_CHECKING:
    from real_vs_ai.serving.scoring import ImageScore, TilesScore

# Finer differences are the engine's rounding, not the image's.
_DECIMALS = 6
UNREADABLE = "unreadable"
_TERMINAL_COLUMNS = 80
# The path stands last: only its length is not known before the last image is.
_TERMINAL_LAYOUT = "{:<12} {:>16}  {}"
TERMINAL_HEADER = _TERMINAL_LAYOUT.format("verdict", "probability", "image")


@dataclass(frozen=True)
class Column:
    """One column of the scores table.

    Attributes:
        kind: Of its values: str, int, float or bool. Only str is never None.
        value: Takes an `ImageScore`.
    """

    kind: type
    value: Callable[[ImageScore], Any]


def _of_verdict(kind: type, name: str) -> Column:
    missing = "" if kind is str else None
    return Column(kind, lambda score: getattr(score.verdict, name) if score.verdict else missing)


def _of_first_reason(value: Callable[[Reason], str]) -> Column:
    def found(score: ImageScore) -> str:
        reasons = score.verdict.reasons if score.verdict else ()
        return value(reasons[0]) if reasons else ""

    return Column(str, found)


def _of_tiles(kind: type, value: Callable[[TilesScore], Any], *, missing: Any) -> Column:
    return Column(kind, lambda score: missing if score.tiles is None else value(score.tiles))


# To add a column, add a line to one of these.
COLUMNS = {
    "path": Column(str, lambda score: score.path),
    "label": _of_verdict(str, "label"),
    "probability_fake": _of_verdict(float, "probability_fake"),
    "confidence": _of_verdict(float, "confidence"),
    "width": Column(int, lambda score: score.width),
    "height": Column(int, lambda score: score.height),
    "format": Column(str, lambda score: score.format),
    "provenance": Column(str, lambda score: score.provenance),
    "error": Column(str, lambda score: score.error),
}
# The first reason of the verdict: its code for programs, its sentence for people.
REASON_COLUMNS = {
    "out_of_distribution": _of_verdict(bool, "out_of_distribution"),
    "reason": _of_first_reason(lambda reason: reason.code.value),
    "note": _of_first_reason(lambda reason: reason.sentence),
    # The model that judged the image, where several answer together.
    "model": _of_verdict(str, "model"),
}
FILE_COLUMNS = {"sha256": Column(str, lambda score: score.sha256)}
TILE_COLUMNS = {
    "tiles": _of_tiles(int, lambda tiles: tiles.count, missing=0),
    "tiles_label": _of_tiles(str, lambda tiles: tiles.verdict.label, missing=""),
    "tiles_probability_fake": _of_tiles(
        float, lambda tiles: tiles.verdict.probability_fake, missing=None
    ),
    "tiles_highest_probability_fake": _of_tiles(
        float, lambda tiles: tiles.highest_probability_fake, missing=None
    ),
}
# Kind of each column; those that are not here (the classes' probabilities) are float.
KINDS = {
    name: c.kind
    for name, c in {**COLUMNS, **REASON_COLUMNS, **FILE_COLUMNS, **TILE_COLUMNS}.items()
}


def score_columns(metadata: ModelMetadata, *, by_tiles: bool) -> dict[str, Column]:
    """COLUMNS, each class's probability unless Fake and Real, and the columns after them."""
    of_classes = () if metadata.positive_index is not None else metadata.class_names
    probabilities = {f"probability_{name}": _probability(name) for name in of_classes}
    of_tiles = TILE_COLUMNS if by_tiles else {}
    return {**COLUMNS, **probabilities, **REASON_COLUMNS, **FILE_COLUMNS, **of_tiles}


def _probability(class_name: str) -> Column:
    return Column(
        float, lambda score: score.verdict.probabilities.get(class_name) if score.verdict else None
    )


def score_row(score: ImageScore, metadata: ModelMetadata, *, by_tiles: bool) -> dict[str, Any]:
    """One row of the table, with None where there is nothing to say."""
    columns = score_columns(metadata, by_tiles=by_tiles)
    return {name: _rounded(column.value(score)) for name, column in columns.items()}


def describe_model(name: str, sha256: str, metadata: ModelMetadata) -> dict[str, Any]:
    """Which model gave the verdicts, for JSON."""
    return {
        "name": name,
        "sha256": sha256,
        "class_names": list(metadata.class_names),
        "image_size": metadata.image_size,
        "calibrated": metadata.calibrated,
        "thresholds": thresholds_of(metadata),
        "created": metadata.created,
        "versions": metadata.versions,
    }


def terminal_lines(row: dict[str, Any]) -> str:
    """One row under TERMINAL_HEADER: its verdict, then why in words; ends with a line break.

    No line is longer than 80 characters; of a longer path the end is shown.
    """
    if row["probability_fake"] is not None:
        number = f"{row['probability_fake']:.1%} Fake"
    else:
        number = "" if row["confidence"] is None else f"{row['confidence']:.1%}"
    head = _TERMINAL_LAYOUT.format(row["label"] or UNREADABLE, number, "")
    path, room = _on_one_line(row["path"]), max(20, _TERMINAL_COLUMNS - len(head))
    lines = [head + (path if len(path) <= room else f"…{path[1 - room :]}")]
    # What holds for every verdict of a model need not be said of each.
    note = row["note"] if row["reason"] != ReasonCode.NOT_CALIBRATED else ""
    for text in filter(None, (row["error"], note, row["provenance"])):
        indent = " " * 4
        lines += textwrap.wrap(
            _on_one_line(text), _TERMINAL_COLUMNS, initial_indent=indent, subsequent_indent=indent
        )
    return "".join(f"{line}\n" for line in lines)


def _on_one_line(text: str) -> str:
    """Without line breaks and escape sequences, which file names and metadata may hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _rounded(value: Any) -> Any:
    return round(value, _DECIMALS) if isinstance(value, float) else value
