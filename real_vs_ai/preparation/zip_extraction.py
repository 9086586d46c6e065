"""Unpack zip archives on all workers, after checking every entry."""

from __future__ import annotations

import bz2
import contextlib
import copy
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from real_vs_ai.preparation.archive_entries import (
    COPY_BYTES,
    READ_ERRORS,
    ArchiveEntry,
    ArchiveError,
    ExtractionLimits,
    ExtractionPlan,
    Readable,
    check_free_space,
    describe_damage,
    make_folders,
    plan_extraction,
    printable,
    raise_if_disk,
    write_file,
)
from real_vs_ai.preparation.parallel import chunked, run_chunks

T = TypeVar("T")
_CHUNK_FILES = 1000
# Python's and most other tools use up to 64 MiB; the archive could ask for 4 GiB.
_MAX_LZMA_MEMORY = 256 * 2**20
_LZMA_UNKNOWN_SIZE = b"\xff" * 8


def extract_zip(
    path: Path, folder: Path, *, limits: ExtractionLimits, workers: int, cluster: str | None
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
        _extract_zip_chunk,
        chunks,
        archive_id,
        str(folder.resolve()),
        n_items=len(plan.names),
        workers=workers,
        cluster=cluster,
        description=f"Unpacking {path.name}",
        unit="file",
    )
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
            with _open_entry(archive, info) as packed:
                sizes.append(write_file(packed, f"{folder}/{name}", size=info.file_size))
        except ArchiveError as error:
            raise ArchiveError(f"entry {printable(info.filename)} {error}") from error
        except (*READ_ERRORS, RuntimeError) as error:
            raise_if_disk(error)
            raise ArchiveError(
                f"entry {printable(info.filename)} is damaged: {describe_damage(error)}"
            ) from error
    return sizes


@contextlib.contextmanager
def _open_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[Readable]:
    if info.compress_type not in {zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}:
        with archive.open(info) as packed:
            yield packed
        return
    # As if stored, with no checksum: the packed bytes, after the check of the local header.
    raw = copy.copy(info)
    raw.compress_type, raw.file_size, raw.CRC = zipfile.ZIP_STORED, info.compress_size, None
    with archive.open(raw) as packed:
        yield _BoundedReader(packed, info)


class _BoundedReader:
    """A bzip2 or LZMA entry; zipfile would unpack a bomb of any size at the first read."""

    def __init__(self, packed: Readable, info: zipfile.ZipInfo) -> None:
        self._packed, self._expected_checksum, self._checksum = packed, info.CRC, 0
        is_lzma = info.compress_type == zipfile.ZIP_LZMA
        self._unpacker = _start_lzma(packed, info) if is_lzma else bz2.BZ2Decompressor()

    def read(self, size: int, /) -> bytes:
        while not self._unpacker.eof:
            wants_more = self._unpacker.needs_input
            piece = self._packed.read(COPY_BYTES) if wants_more else b""
            if wants_more and not piece:
                break
            if data := self._unpacker.decompress(piece, size):
                self._checksum = zlib.crc32(data, self._checksum)
                return data
        if self._checksum != self._expected_checksum:
            raise zipfile.BadZipFile("bad CRC-32")
        return b""


def _start_lzma(packed: Readable, info: zipfile.ZipInfo) -> lzma.LZMADecompressor:
    # The zip format puts a version (2 bytes) and a length before the 5 bytes of properties. With
    # the size behind them they are the header of a .lzma file, for which memory can be limited.
    head = packed.read(9)
    if len(head) < 9 or head[2:4] != b"\x05\x00":
        raise zipfile.BadZipFile("bad LZMA properties")
    has_end_mark = bool(info.flag_bits & 2)
    size = _LZMA_UNKNOWN_SIZE if has_end_mark else info.file_size.to_bytes(8, "little")
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_LZMA_MEMORY)
    unpacker.decompress(head[4:] + size)
    return unpacker
