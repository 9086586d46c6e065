"""Find files, hash them, and write them so that each appears whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import operator
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from real_vs_ai.core.config import JUNK_NAMES
from real_vs_ai.core.errors import InputError

_FAR = 2**30
_NAME = operator.attrgetter("name")


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is never data.

    Hidden ones are not (`.git`, macOS' `._photo.jpg`), nor those that macOS and Windows leave.
    """
    return name in JUNK_NAMES or name.startswith(".")


def iterate_files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, and every link, in the order of their names, without junk.

    Links to folders are not followed. A reader refuses itself what it cannot read.
    """
    return (folder / path for path in _walk(folder, links=True))


def list_files(folder: Path, *, links: bool = False) -> list[str]:
    """The files below a folder as POSIX paths relative to it, sorted, without junk.

    Args:
        links: Whether links, devices and pipes count as files, as `iterate_files` has them. What
            copies or moves files leaves them alone: they may lead anywhere.
    """
    return sorted(_walk(folder, links=links))


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, sorted by name, without junk; [] if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_junk(path.name))


def _walk(folder: Path, *, links: bool) -> Iterator[str]:
    # Recursion would fail: folders may be nested deeper than Python's calls.
    levels = [_entries(folder, "", links=links)]
    while levels:
        path, is_folder = next(levels[-1], ("", False))
        if not path:
            levels.pop()
        elif is_folder:
            levels.append(_entries(folder / path, f"{path}/", links=links))
        else:
            yield path


def _entries(folder: Path, prefix: str, *, links: bool) -> Iterator[tuple[str, bool]]:
    """A folder's entries by name, after a prefix, and whether each is a folder itself."""
    with os.scandir(folder) as entries:
        data = sorted((entry for entry in entries if not is_junk(entry.name)), key=_NAME)
    for entry in data:
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder or links or entry.is_file(follow_symlinks=False):
            yield prefix + entry.name, is_folder


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Which file stands under a path: inode, time of change in ns, size.
FileStamp = tuple[int, int, int]


def file_stamp(path: Path) -> FileStamp | None:
    """Differs once a file is replaced or changed; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def atomic_write(path: Path, *, edit: bool = False, alone: bool = False) -> Iterator[Path]:
    """Write a file under another name, which becomes `path` when the block ends well.

    Args:
        path: The file to write; its folder is made.
        edit: Begin with a copy of `path`, to change it in place.
        alone: No other process writes this file now. What a killed process left is then written
            over, and the disk has the content before the file gets its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = "staging" if alone else f"{os.getpid()}-{threading.get_ident()}"
    # The ending stays, since libraries choose the format by it.
    staging = path.with_name(f".{writer}.{path.name}")
    try:
        if edit:
            shutil.copyfile(path, staging)
        yield staging
        if alone:
            with staging.open("rb+") as file:
                os.fsync(file.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def lock_file(file: TextIO) -> None:
    """Lock an open file for this process until it is closed; the system ends a killed one's lock.

    Raises:
        BlockingIOError: Another process, or another opening of the file here, has the lock.
    """
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            # Far behind the end, since Windows keeps others from reading what is locked.
            file.seek(_FAR)
            lock: Any = msvcrt  # Its names are known to the checker on Windows alone.
            lock.locking(file.fileno(), lock.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
        finally:
            file.seek(0, os.SEEK_END)
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def put_in_place(made: Path, target: Path) -> None:
    """Rename what was made, a file or a folder, to the name of what it replaces."""
    if target.is_dir():
        shutil.rmtree(target)
    made.replace(target)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic_write(path) as staging:
        staging.write_bytes(data)


def write_text(path: Path, text: str, *, alone: bool = False) -> None:
    """Write a text file whole or not at all; see `atomic_write`."""
    with atomic_write(path, alone=alone) as staging:
        staging.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path, values: Any) -> None:
    """Write JSON whole or not at all; numbers that are not finite become null."""
    write_text(path, json.dumps(plain(values), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: It is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not a JSON file ({error}).") from error


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whole or not at all; no other process may write it at the same time."""
    # surrogateescape: names on Linux may hold bytes that are not UTF-8, and come back unchanged.
    with (
        atomic_write(path, alone=True) as staging,
        staging.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        # Before Python 3.13 a carriage return is written without quotes, and read as a line's end.
        quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        for row in rows:
            has_return = any(isinstance(value, str) and "\r" in value for value in row)
            (quoting if has_return else writer).writerow(row)


def read_table(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = ()
) -> Iterator[tuple[str, ...]]:
    """The rows of a CSV file: the text of each column in `columns`, then in `optional`.

    Other columns are ignored. The text of an optional column that is missing is "".

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A column is missing, or a line is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a CSV table at {path}, found none.")
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if missing := [name for name in columns if name not in header]:
                raise InputError(
                    f"Expected the columns {','.join(columns)} in {path}, found no "
                    f"{', '.join(missing)} in {','.join(header)[:200] or 'an empty file'}."
                )
            places = [header.index(n) if n in header else None for n in (*columns, *optional)]
            for row in reader:
                if row and len(row) != len(header):
                    raise csv.Error(f"{len(row)} values in {len(header)} columns")
                if row:
                    yield tuple("" if place is None else row[place] for place in places)
        except csv.Error as error:
            raise InputError(f"{path} is damaged at line {reader.line_num}: {error}.") from error


def table_columns(path: Path) -> list[str]:
    """The column names of a CSV file; [] where it has none."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            return next(csv.reader(file), [])
        except csv.Error as error:
            raise InputError(f"{path} is not a CSV table: {error}.") from error


def plain(values: Any) -> Any:
    """The same in JSON's own types: numpy's become Python's, NaN and infinities None."""
    if isinstance(values, dict):
        return {str(key): plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple, np.ndarray)):
        return [plain(value) for value in values]
    if isinstance(values, (bool, np.bool_)):
        return bool(values)
    if isinstance(values, np.integer):
        return int(values)
    if isinstance(values, (float, np.floating)):
        return float(values) if math.isfinite(values) else None
    return values
