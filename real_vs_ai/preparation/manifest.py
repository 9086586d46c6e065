"""Name files safely, place them without overwriting any, and list each in the manifest or a report.

Every input file is in the manifest or in the report, so that nothing is dropped silently. Nothing
here follows a symbolic link.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from pathlib import Path, PurePosixPath

from real_vs_ai.core.config import (
    COLLECTION_COLUMNS,
    COPY_COLUMNS,
    MANIFEST_COLUMNS,
    MANIFEST_NAME,
    SPLITS,
    ordered_class_names,
)
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import read_table, write_table
from real_vs_ai.core.reporting import plural, progress

REPORT_NAME = "report.csv"
CONFOUNDS_NAME = "confounds.json"
# What lies next to the class folders. The manifest comes last: it says that the rest is there.
DESCRIPTION_NAMES = (REPORT_NAME, CONFOUNDS_NAME, MANIFEST_NAME)
QUARANTINE_DIR_NAME = "quarantine"
LEFT_OUT = "left out"
# What every common file system takes: 255 bytes, with room for a suffix of ours.
MAX_NAME_BYTES = 240
# Windows refuses these in names; they are replaced where a name is made, never in raw data.
_RESERVED_CHARACTERS = frozenset('<>:"/\\|?*')
# Windows turns "\n" into "\r\n" without it.
_BINARY = getattr(os, "O_BINARY", 0)
_PLAIN_NAME = re.compile(rf"[\w (),+=@%&#~^!;'.-]{{1,{MAX_NAME_BYTES}}}(?<![ .])", re.ASCII)


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
    columns: tuple[str, ...] = MANIFEST_COLUMNS
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


# How files were placed: a Counter of these says it for many.
LINKED, COPIED, ENCODED = "hard-linked (no extra space)", "copied", "encoded again"


def describe_placement(placement: Counter[str]) -> str:
    """ "2 files hard-linked (no extra space), 1 file copied"."""
    parts = [f"{plural(count, 'file')} {how}" for how, count in placement.items() if count]
    return ", ".join(parts) or "no files placed"


def refuse_overlap(output: Path, *, inputs: Iterable[Path]) -> None:
    """Raise InputError if an output is an input, contains one or lies in one: it would be lost."""
    for folder in inputs:
        if _lies_in(output, folder) or _lies_in(folder, output):
            raise InputError(
                f"Expected an output apart from its input, found {output} to be {folder}, to "
                "contain it or to lie in it. Nothing was changed. Name another --output-dir."
            )


def _lies_in(path: Path, folder: Path) -> bool:
    if not folder.exists():
        return False
    path = path.resolve()
    # The spelling does not decide: a file system may ignore case.
    return any(place.exists() and place.samefile(folder) for place in (path, *path.parents))


def rank(seed: int, key: str) -> bytes:
    """A place in a seeded shuffle that depends on nothing but the seed and the key.

    Sorting by it shuffles alike on every machine, whatever else is in the list.
    """
    return hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogateescape")).digest()


def fold_name(name: str) -> str:
    """Names that fold alike are one name on file systems that ignore case or Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def safe_name(name: str) -> str:
    """The name with what some file system refuses replaced, and shortened to fit.

    A name that had to be shortened ends in eight characters of its own hash, so that two long
    names stay two.
    """
    if _PLAIN_NAME.fullmatch(name):
        # Nearly all names pass here; what follows takes ten times as long.
        return name
    kept = "".join(
        "_" if character in _RESERVED_CHARACTERS or not character.isprintable() else character
        for character in unicodedata.normalize("NFC", name)
    ).rstrip(" .")
    if len(kept.encode()) <= MAX_NAME_BYTES:
        return kept or "_"
    suffix = PurePosixPath(kept).suffix[:16]
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    room = MAX_NAME_BYTES - len(suffix.encode()) - 9
    stem = kept.removesuffix(suffix).encode()[:room].decode(errors="ignore")
    return f"{stem}-{digest}{suffix}"


def unique_names(names: Sequence[str]) -> list[str]:
    """Names without collisions, also where case or Unicode form does not count.

    The first of several keeps its name; the others get -2, -3, … before their extension, never
    a name that another one has. The same names in the same order always give the same result.
    """
    taken = {fold_name(name) for name in names}
    # Counting goes on from the last one: many equal names would take hours otherwise.
    next_numbers: dict[str, int] = {}
    result = []
    for name in names:
        folded = fold_name(name)
        if folded in next_numbers:
            name, next_numbers[folded] = _numbered(name, taken, number=next_numbers[folded])
            taken.add(fold_name(name))
        else:
            next_numbers[folded] = 2
        result.append(name)
    return result


def _numbered(name: str, taken: set[str], *, number: int) -> tuple[str, int]:
    """The name with the first free number from `number` on, and the number after it."""
    path = PurePosixPath(name)
    while True:
        candidate = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        number += 1
        if fold_name(candidate) not in taken:
            return candidate, number


def source_names(paths: Iterable[Path]) -> list[str]:
    """The source that each folder or archive names.

    Raises:
        InputError: Two name the same one.
    """
    names = [source_name(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"Expected inputs of different names, found {', '.join(names)}.")
    return names


def source_name(path: Path) -> str:
    """The source that a folder or an archive (by its stem) names: letters, digits, "-", "."."""
    cleaned = re.sub(r"(?:[^\w.]|_)+", "-", path.name).strip("-.")
    return safe_name(cleaned) if cleaned else "source"


def place_files(
    pairs: Iterable[tuple[str | Path, str | Path]], *, total: int | None = None
) -> Counter[str]:
    """Put files at new places, as hard links where the file system allows and copies otherwise.

    Args:
        pairs: (existing file, new path); the folders of the new paths exist.

    Raises:
        FileExistsError: A new path is taken; nothing is overwritten.
    """
    placement: Counter[str] = Counter()
    for existing, new in progress(pairs, description="Placing", unit="file", total=total):
        is_linked = _link(existing, new)
        if not is_linked:
            _copy(Path(existing), Path(new))
        placement[LINKED if is_linked else COPIED] += 1
    return placement


def place_rows(rows: Sequence[ManifestRow], *, data_dir: Path, folder: Path) -> Counter[str]:
    """Put the images of the rows, whose origins are relative to `data_dir`, below `folder`."""
    make_class_folders(rows, folder)
    root = str(data_dir.resolve())
    # join, since an origin on another drive is absolute; strings, since path objects are slow.
    pairs = ((os.path.join(root, row.origin), f"{folder}/{row.path}") for row in rows)  # noqa: PTH118
    return place_files(pairs, total=len(rows))


def make_class_folders(rows: Sequence[ManifestRow], folder: Path) -> None:
    """Make the folders below `folder` that the rows' images go to."""
    for subfolder in sorted({row.path.rpartition("/")[0] for row in rows}):
        (folder / subfolder).mkdir(parents=True)


def relative_origin(folder: Path, data_dir: Path) -> str:
    """A folder as seen from the data folder, in POSIX form; absolute on another drive."""
    try:
        return Path(os.path.relpath(folder.resolve(), data_dir.resolve())).as_posix()
    except ValueError:
        return folder.resolve().as_posix()


def _link(existing: str | Path, new: str | Path) -> bool:
    try:
        os.link(existing, new, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError):
        raise
    except (OSError, NotImplementedError):
        # It is another file system, one without links, or there are too many links to the file.
        return False
    return True


def _copy(existing: Path, new: Path) -> None:
    """Copy content and times; refuses a path that is taken."""
    with existing.open("rb") as source, new.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    shutil.copystat(existing, new)


def write_new_file(path: str, data: bytes) -> None:
    """Write a file that is not there yet; for many small ones, where Python's layers would show."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        written = os.write(descriptor, data)
        # Where the disk is nearly full, the system takes a part, and says why at the next attempt.
        while written < len(data):
            written += os.write(descriptor, data[written:])
    finally:
        os.close(descriptor)
