"""Zip archives: every entry checked, unpacked on all workers."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from real_vs_ai.preparation.archive_entries import (
    ArchiveEntry,
    ArchiveError,
    ExtractionLimits,
    ExtractionPlan,
    plan_extraction,
    printable,
)
from real_vs_ai.preparation.parallel import chunked, run_chunks
from real_vs_ai.preparation.unpacking import (
    READ_ERRORS,
    check_free_space,
    describe_damage,
    make_folders,
    raise_if_disk,
    write_file,
)

T = TypeVar("T")
_CHUNK_FILES = 1000


def extract_zip(
    path: Path, folder: Path, *, limits: ExtractionLimits, workers: int, engine: str
) -> ExtractionPlan:
    """Unpack a zip archive into an empty folder.

    Raises:
        ArchiveError: It is damaged, hostile or too large.
        OSError: The disk is too small, or cannot be written.
    """
    status = path.stat()
    # Workers may outlive a run, and a new archive may take an old one's name.
    archive_id = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    infos = _open_zip(archive_id).infolist()
    entries = [_zip_entry(info) for info in infos]
    plan = plan_extraction(entries, archive_bytes=status.st_size, limits=limits)
    _check_overlaps([infos[index] for index in plan.names])
    check_free_space(folder, plan)
    make_folders(folder, plan)
    chunks = _spread(chunked(list(plan.names.items()), size=_CHUNK_FILES), workers=workers)
    results = run_chunks(
        _extract_zip_chunk, chunks, archive_id, str(folder.resolve()),
        n_items=len(plan.names), workers=workers, engine=engine,
        description=f"Unpacking {path.name}", unit="file",
    )  # fmt: skip
    try:
        for _ in results:
            pass
    finally:
        # Windows deletes no file that is open.
        _open_zip.cache_clear()
    return plan


def _spread(chunks: Sequence[T], *, workers: int) -> list[T]:
    """The chunks in an order that keeps workers far apart, and so mostly in different folders.

    Two processes that make files in one folder wait for each other.
    """
    stride = -(-len(chunks) // workers) or 1
    return [chunk for start in range(stride) for chunk in chunks[start::stride]]


@lru_cache(maxsize=1)
def _open_zip(archive_id: tuple[str, int, int]) -> zipfile.ZipFile:
    """Opened once in each process: reading the table of contents takes a second for 100,000."""
    try:
        return zipfile.ZipFile(archive_id[0])
    except READ_ERRORS as error:
        raise ArchiveError(f"damaged table of contents: {error}") from error


def _zip_entry(info: zipfile.ZipInfo) -> ArchiveEntry:
    # The upper half holds the Unix mode, whose highest four bits are the file type.
    file_type = info.external_attr >> 28 if info.create_system == 3 else 0
    if info.is_dir():
        kind = "folder"
    elif file_type == 0xA:
        kind = "link"
    elif file_type in {0x0, 0x8}:
        kind = "file"
    else:
        kind = "device"
    # orig_filename: ZipInfo cuts a name at a NUL and would hide the rest.
    return ArchiveEntry(
        info.orig_filename, kind, info.file_size, info.compress_size, bool(info.flag_bits & 0x41)
    )


def _check_overlaps(infos: Sequence[zipfile.ZipInfo]) -> None:
    """Entries that share bytes are how small archives become huge ones."""
    end, last = 0, ""
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ArchiveError(f"entries {printable(last)} and {printable(info.filename)} overlap")
        end, last = info.header_offset + 30 + info.compress_size, info.filename


def _extract_zip_chunk(
    chunk: Sequence[tuple[int, str]], archive_id: tuple[str, int, int], folder: str
) -> list[int]:
    archive = _open_zip(archive_id)
    infos = archive.infolist()
    sizes = []
    for index, name in chunk:
        info = infos[index]
        try:
            with archive.open(info) as packed:
                sizes.append(write_file(packed, f"{folder}/{name}", size=info.file_size))
        except ArchiveError as error:
            raise ArchiveError(f"entry {printable(info.filename)} {error}") from error
        except (*READ_ERRORS, RuntimeError) as error:
            raise_if_disk(error)
            raise ArchiveError(
                f"entry {printable(info.filename)} is damaged: {describe_damage(error)}"
            ) from error
    return sizes
