"""Read zip archives that nobody vouches for: list their entries, and write some."""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from real_vs_ai.core.errors import InputError, one_line
from real_vs_ai.core.parallel import Pool, chunked, run_chunks

T = TypeVar("T")
# A file's path, size and time: a new archive may take an old one's name.
_ArchiveId = tuple[str, int, int]
_CHUNK_FILES = 1000
# With other methods zipfile unpacks an entry whole before it counts, however large it is.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_COPY_BYTES = 1 << 20
# What the zipfile library raises on damaged files.
_READ_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError),
    RuntimeError,
)


class ArchiveError(InputError):
    """An archive that is refused; the message names the entry and the reason."""


def printable(name: str) -> str:
    """An entry's name as one harmless line."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def list_entries(path: Path) -> list[zipfile.ZipInfo]:
    """An archive's table of contents.

    Raises:
        ArchiveError: It is no zip archive, or damaged, or compressed by an unusual method.
    """
    with path.open("rb") as file:
        # A zip is recognised by its end, where a tar may hold one.
        if file.read(2) != b"PK" or not zipfile.is_zipfile(file):
            raise ArchiveError(
                "it is no zip archive, or an incomplete one; pack other archives as zips, or "
                "unpack them by hand and name their folders to the next script"
            )
    entries = _open_zip(_identify(path)).infolist()
    for info in entries:
        if info.compress_type not in _METHODS:
            raise ArchiveError(
                f"entry {printable(info.filename)} is compressed by a method that is not read "
                "here; unpack the archive with another program and name its folder to the next "
                "script"
            )
    return entries


def write_entries(path: Path, names: Mapping[int, str], folder: Path, *, pool: Pool) -> None:
    """Write some entries of a zip archive.

    Args:
        names: The wanted names below `folder`, by the entries' indices.
        folder: Holds all folders that the names need.

    Raises:
        ArchiveError: An entry is damaged, or shares bytes with another.
    """
    archive_id = _identify(path)
    infos = _open_zip(archive_id).infolist()
    _check_overlaps([infos[index] for index in names])
    results = run_chunks(
        _write_chunk,
        _spread(chunked(list(names.items()), size=_CHUNK_FILES), workers=pool.workers),
        archive_id,
        str(folder.resolve()),
        pool=pool,
        description=f"Unpacking {path.name}",
        unit="file",
    )
    try:
        for _ in results:
            pass
    finally:
        # Windows deletes no file that is open.
        _open_zip.cache_clear()


def _identify(path: Path) -> _ArchiveId:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def _spread(chunks: Sequence[T], *, workers: int) -> list[T]:
    """The chunks in an order that keeps workers far apart, and so mostly in different folders.

    Two processes that make files in one folder wait for each other.
    """
    stride = -(-len(chunks) // workers) or 1
    return [chunk for start in range(stride) for chunk in chunks[start::stride]]


@lru_cache(maxsize=1)
def _open_zip(archive_id: _ArchiveId) -> zipfile.ZipFile:
    """Opened once in each process: reading the table of contents takes a second for 100,000."""
    try:
        return zipfile.ZipFile(archive_id[0])
    except _READ_ERRORS as error:
        raise ArchiveError(f"damaged table of contents: {error}") from error


def _check_overlaps(infos: Sequence[zipfile.ZipInfo]) -> None:
    """Entries that share bytes are how small archives become huge ones."""
    end, last = 0, ""
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ArchiveError(f"entries {printable(last)} and {printable(info.filename)} overlap")
        end, last = info.header_offset + 30 + info.compress_size, info.filename


def _write_chunk(
    chunk: Sequence[tuple[int, str]], archive_id: _ArchiveId, folder: str
) -> list[int]:
    archive = _open_zip(archive_id)
    infos = archive.infolist()
    return [_write_entry(archive, infos[index], f"{folder}/{name}") for index, name in chunk]


def _write_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: str) -> int:
    """Write an entry; what is longer or shorter than the archive says is refused."""
    written, size = 0, info.file_size
    try:
        # "x": a name that is taken after all is never written over.
        with archive.open(info) as packed, open(target, "xb") as file:  # noqa: PTH123 (speed)
            while written <= size and (data := packed.read(min(_COPY_BYTES, size - written + 1))):
                written += len(data)
                file.write(data)
    except _READ_ERRORS as error:
        # Damaged offsets make the library seek where no file has a place; any other error of the
        # system is the disk's, and not the archive's fault.
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise
        damage = one_line(error) if str(error).strip() else "it ends too early"
        raise ArchiveError(f"entry {printable(info.filename)} is damaged: {damage}") from error
    if written != size:
        received = "more" if written > size else f"{written:,}"
        raise ArchiveError(
            f"entry {printable(info.filename)} has {received} bytes, the archive says {size:,}"
        )
    return written
