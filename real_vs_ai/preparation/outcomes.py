"""What became of the files that did not simply go on: `report.csv` beside every manifest.

Every input file is either in the manifest or in the report, so that nothing is dropped silently.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

REPORT_NAME = "report.csv"
QUARANTINE_DIR_NAME = "quarantine"

DUPLICATE = "second copy"
LEAK = "stands in another split"
QUARANTINED = "quarantined"
NO_IMAGE = "not an image"
PLAIN = "not for training"
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


def write_report(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the outcomes sorted by path."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "outcome", "detail"))
        ordered = sorted(outcomes, key=lambda row: (row.path, row.outcome))
        writer.writerows((row.path, row.outcome, row.detail) for row in ordered)


def count_outcomes(outcomes: Iterable[Outcome]) -> list[list[str | int]]:
    """Rows (outcome, files) of a table."""
    counts = Counter(row.outcome for row in outcomes)
    return [[outcome, counts[outcome]] for outcome in sorted(counts)]
