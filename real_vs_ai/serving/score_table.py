"""Turn scores into rows of a table and lines for the terminal.

columns = score_columns(metadata, by_tiles=False)
rows = [score_row(score, metadata, by_tiles=False) for score in scores]
"""

from __future__ import annotations

from typing import Any

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.serving.scoring import ImageScore
from real_vs_ai.verdict import Verdict

COLUMNS = (
    "path",
    "label",
    "probability_fake",
    "confidence",
    "width",
    "height",
    "format",
    "provenance",
    "error",
)
# The first reason of the verdict: its code for programs, its sentence for people.
REASON_COLUMNS = ("out_of_distribution", "reason", "note")
TILE_COLUMNS = ("tiles", "tiles_label", "tiles_probability_fake", "tiles_highest_probability_fake")
# Finer differences are the engine's rounding, not the image's.
_DECIMALS = 6
UNREADABLE = "unreadable"
# The path stands last: only its length is not known before the last image is.
_TERMINAL_LAYOUT = "{:<12} {:>16}  {:>10}  {:>11}  {:<6}  {}"
TERMINAL_HEADER = _TERMINAL_LAYOUT.format(
    "label", "probability_fake", "confidence", "size", "format", "path"
)


def score_columns(metadata: ModelMetadata, *, by_tiles: bool) -> tuple[str, ...]:
    """COLUMNS, each class's probability unless Fake and Real, REASON_COLUMNS, and TILE_COLUMNS."""
    of_classes = () if metadata.positive_index is not None else metadata.class_names
    of_tiles = TILE_COLUMNS if by_tiles else ()
    return (*COLUMNS, *(f"probability_{name}" for name in of_classes), *REASON_COLUMNS, *of_tiles)


def score_row(score: ImageScore, metadata: ModelMetadata, *, by_tiles: bool) -> dict[str, Any]:
    """One row of the table, with None where there is nothing to say."""
    verdict = score.verdict
    values: dict[str, Any] = {
        "path": score.path,
        "label": verdict.label if verdict else "",
        "probability_fake": _rounded(verdict.probability_fake) if verdict else None,
        "confidence": _rounded(verdict.confidence) if verdict else None,
        "width": score.width,
        "height": score.height,
        "format": score.format,
        "provenance": score.provenance,
        "error": score.error,
    }
    if metadata.positive_index is None:
        for name in metadata.class_names:
            values[f"probability_{name}"] = (
                _rounded(verdict.probabilities[name]) if verdict else None
            )
    values.update(reason_values(verdict))
    return {**values, **_tile_values(score)} if by_tiles else values


def reason_values(verdict: Verdict | None) -> dict[str, Any]:
    """REASON_COLUMNS of one verdict, of None where the image cannot be read."""
    first = verdict.reasons[0] if verdict and verdict.reasons else None
    values = (
        verdict.out_of_distribution if verdict else None,
        first.code.value if first else "",
        first.sentence if first else "",
    )
    return dict(zip(REASON_COLUMNS, values, strict=True))


def _tile_values(score: ImageScore) -> dict[str, Any]:
    tiles = score.tiles
    if tiles is None:
        return dict(zip(TILE_COLUMNS, (0, "", None, None), strict=True))
    together = tiles.verdict
    values = (
        tiles.count,
        together.label,
        _rounded(together.probability_fake),
        _rounded(tiles.highest_probability_fake),
    )
    return dict(zip(TILE_COLUMNS, values, strict=True))


def terminal_line(row: dict[str, Any]) -> str:
    """One row under TERMINAL_HEADER."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    size = f"{row['width']}×{row['height']}" if row["width"] else ""
    # A stranger's file name may hold line breaks and escape sequences.
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in row["path"])
    line = _TERMINAL_LAYOUT.format(
        row["label"] or UNREADABLE,
        number(row["probability_fake"]),
        number(row["confidence"]),
        size,
        row["format"],
        name,
    )
    reason = "out-of-distribution" if row["out_of_distribution"] else ""
    details = "; ".join(filter(None, [row["error"], reason, row["provenance"]]))
    return f"{line}  ({details})" if details else line


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)
