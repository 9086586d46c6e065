"""Report files that were left out or changed, in `report.csv` and in tables.

Every input file is either in the manifest or in the report, so that nothing is dropped silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from real_vs_ai.files import write_table
from real_vs_ai.preparation.manifest import ManifestRow, count_table, size_table
from real_vs_ai.reporting import format_table

REPORT_NAME = "report.csv"
QUARANTINE_DIR_NAME = "quarantine"

DUPLICATE = "second copy"
LEAK = "stands in another split"
QUARANTINED = "quarantined"
NO_IMAGE = "not an image"
PLAIN = "not for training"
LOOSE = "in no class folder"
# Told only: the file is in the manifest.
WRONG_EXTENSION = "kept, wrong extension"
RENAMED = "kept, renamed"
NEAR_DUPLICATE = "kept, near-duplicate"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file.

    Attributes:
        path: POSIX path of the input file.
        outcome: One of the constants above.
        detail: The reason, or the path of the file that is kept in its place.
    """

    path: str
    outcome: str
    detail: str


def loose_outcomes(paths: Iterable[str]) -> list[Outcome]:
    """Outcomes of files that lie beside the class folders."""
    return [Outcome(path, LOOSE, "lies beside the class folders") for path in paths]


def write_report(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the outcomes sorted by path."""
    ordered = sorted(outcomes, key=attrgetter("path", "outcome"))
    columns = ("path", "outcome", "detail")
    write_table(path, columns, map(attrgetter(*columns), ordered))


def count_outcomes(outcomes: Iterable[Outcome]) -> list[list[str | int]]:
    """Rows (outcome, files) of a table."""
    counts = Counter(row.outcome for row in outcomes)
    return [[outcome, counts[outcome]] for outcome in sorted(counts)]


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
