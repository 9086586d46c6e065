"""Read and write the manifest, a row for each image, and the report of all other files.

Every input file is in the manifest or in the report, so that nothing is dropped silently.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from pathlib import Path

from real_vs_ai.config import (
    COLLECTION_COLUMNS,
    COPY_COLUMNS,
    MANIFEST_COLUMNS,
    MANIFEST_NAME,
    SPLITS,
    ordered_class_names,
)
from real_vs_ai.errors import InputError
from real_vs_ai.files import read_table, write_table


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image; the fields are the manifest's columns (config.MANIFEST_COLUMNS and more).

    Attributes:
        path: POSIX path relative to the manifest's folder.
        sha256: Of the file's content, in hexadecimal.
        width: Upright, in pixels. So is the height.
        format: The file's real format: "JPEG", "PNG", …
        origin: Path of the file it was made from.
        generator: What made it, or where it was photographed, as far as a collection says so.
        group: Images of one group (a sheet, a prompt) share a split; "" means none.
        origin_sha256: Of the training image that an augmented copy was made from; otherwise "".
    """

    path: str
    sha256: str
    label: str
    split: str
    source: str
    width: int
    height: int
    format: str
    origin: str
    generator: str = ""
    collection: str = ""
    group: str = ""
    origin_sha256: str = ""


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write the rows sorted by path; a killed process leaves the old file or the new one.

    The columns of collections and of augmented copies are written where a row has one of them.
    """
    rows = sorted(rows, key=attrgetter("path"))
    columns = MANIFEST_COLUMNS
    if any(row.collection or row.generator or row.group for row in rows):
        columns += COLLECTION_COLUMNS
    if any(row.origin_sha256 for row in rows):
        columns += COPY_COLUMNS
    write_table(path, columns, map(attrgetter(*columns), rows))


def read_manifest(path: Path) -> list[ManifestRow]:
    """The rows of a manifest, in its order.

    Raises:
        FileNotFoundError: There is none.
        InputError: It lacks a column, or a row is damaged.
    """
    try:
        table = read_table(path, MANIFEST_COLUMNS, optional=COLLECTION_COLUMNS + COPY_COLUMNS)
        return [_parse(values) for values in table]
    except InputError as error:
        raise InputError(f"{error} Run the stage that writes the manifest again.") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}.") from error


def _parse(values: Sequence[str]) -> ManifestRow:
    path, sha256, label, split, source, width, height, file_format, origin, *optional = values
    # A million rows share a handful of these values; interned, each is held once.
    label, split, source, file_format = map(sys.intern, (label, split, source, file_format))
    size = int(width), int(height)
    more = map(sys.intern, optional)
    return ManifestRow(path, sha256, label, split, source, *size, file_format, origin, *more)


def count_table(rows: Iterable[ManifestRow]) -> tuple[list[str], list[list[str | int]]]:
    """Headers and rows of a table: images by source, split and class."""
    counts = Counter((row.source, row.split, row.label) for row in rows)
    class_names = ordered_class_names(label for _, _, label in counts)
    body: list[list[str | int]] = []
    for source, split in sorted(
        {(source, split) for source, split, _ in counts},
        key=lambda group: (group[0], (*SPLITS, group[1]).index(group[1])),
    ):
        numbers = [counts[source, split, name] for name in class_names]
        body.append([source, split, *numbers, sum(numbers)])
    return ["source", "split", *class_names, "images"], body


REPORT_NAME = "report.csv"
CONFOUNDS_NAME = "confounds.json"
CONFOUNDS_FIGURE_NAME = "figures/confounds.png"
# What lies next to the class folders. The manifest comes last: it says that the rest is there.
DESCRIPTION_NAMES = (REPORT_NAME, CONFOUNDS_NAME, CONFOUNDS_FIGURE_NAME, MANIFEST_NAME)
QUARANTINE_DIR_NAME = "quarantine"
LEFT_OUT = "left out"


class Fate(StrEnum):
    """What became of a file; those kept are in the manifest as well."""

    DUPLICATE = "second copy"
    LEAK = "is in another split"
    QUARANTINED = "quarantined"
    NO_IMAGE = "not an image"
    PLAIN = "not for training"
    LOOSE = "in no class folder"
    WRONG_EXTENSION = "kept, wrong extension"
    RENAMED = "kept, renamed"
    NEAR_DUPLICATE = "kept, near-duplicate"


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """The outcome of one file.

    Attributes:
        detail: The reason, or the path of the file that is kept in its place.
    """

    path: str
    outcome: str
    detail: str


def loose_outcomes(paths: Iterable[str]) -> list[FileOutcome]:
    """Outcomes of files that lie next to the class folders."""
    return [FileOutcome(path, Fate.LOOSE, "lies next to the class folders") for path in paths]


def write_outcomes(path: Path, outcomes: Iterable[FileOutcome]) -> None:
    """Write the outcomes sorted by path."""
    ordered = sorted(outcomes, key=attrgetter("path", "outcome"))
    columns = ("path", "outcome", "detail")
    write_table(path, columns, map(attrgetter(*columns), ordered))
