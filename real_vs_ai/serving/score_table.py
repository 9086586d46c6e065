"""What a scores table holds: its columns, one row for each score, and a line for the terminal.

columns = score_columns(metadata, by_tiles=False)
rows = [score_row(score, metadata, by_tiles=False) for score in scores]
"""

from __future__ import annotations

from typing import Any

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.serving.scoring import ImageScore

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
# What is unlike the training images; why the verdict is Uncertain where it is much so.
DOMAIN_COLUMN = "domain_note"
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
    """COLUMNS, the class probabilities unless Fake and Real, the domain, and what tiles say."""
    of_classes = () if metadata.positive_index is not None else metadata.class_names
    of_tiles = TILE_COLUMNS if by_tiles else ()
    return (*COLUMNS, *(f"probability_{name}" for name in of_classes), DOMAIN_COLUMN, *of_tiles)


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
    values[DOMAIN_COLUMN] = verdict.domain.note if verdict else ""
    return {**values, **_tile_values(score)} if by_tiles else values


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
    unlike = "unlike the training images" if row[DOMAIN_COLUMN] else ""
    details = "; ".join(filter(None, [row["error"], unlike, row["provenance"]]))
    return f"{line}  ({details})" if details else line


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)
