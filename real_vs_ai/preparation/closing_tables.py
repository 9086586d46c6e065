"""The closing tables of the stages that make a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from real_vs_ai.preparation.manifest import ManifestRow, count_table, size_table
from real_vs_ai.preparation.outcomes import REPORT_NAME, Outcome, count_outcomes
from real_vs_ai.reporting import format_table

MOST_LISTED_SIZES = 5


def closing_tables(
    rows: Sequence[ManifestRow], outcomes: Sequence[Outcome], *, title: str, output_dir: Path
) -> str:
    """Images by source, split and class, and by size; what was left out or noted, and why."""
    headers, body = count_table(rows)
    tables = [format_table(headers, body, title=title)]
    headers, body = size_table(rows, most=MOST_LISTED_SIZES)
    tables.append(format_table(headers, body))
    if outcomes:
        note = f"Left out or noted (see {output_dir / REPORT_NAME})"
        tables.append(format_table(["outcome", "files"], count_outcomes(outcomes), title=note))
    return "\n\n".join(tables)
