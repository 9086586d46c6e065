"""Unpack zip and tar archives, after checking every entry."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, NoReturn, TypeVar

from real_vs_ai.errors import one_line
from real_vs_ai.parallel import Pool, chunked, run_chunks
from real_vs_ai.preparation.archive_entries import (
    HARMLESS_BYTES,
    MAX_RATIO,
    ArchiveEntry,
    ArchiveError,
    ExtractionPlan,
    plan_extraction,
    printable,
)
from real_vs_ai.reporting import progress

T = TypeVar("T")
_CHUNK_FILES = 1000
# With other methods zipfile unpacks an entry whole before it counts, however large it is.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_COPY_BYTES = 1 << 20
# A file takes whole blocks on the disk, half of one too many on average.
_BLOCK_BYTES = 4096
_SPARE_BYTES = 64 * 2**20
# What the archive libraries raise on damaged files.
_LIBRARY_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
_READ_ERRORS = (*_LIBRARY_ERRORS, EOFError, OSError, ValueError, OverflowError, RuntimeError)


def extract_zip(path: Path, folder: Path, *, pool: Pool) -> ExtractionPlan:
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
    plan = plan_extraction(entries, archive_bytes=status.st_size)
    _check_overlaps([infos[index] for index in plan.names])
    _make_room(folder, plan)
    chunks = _spread(chunked(list(plan.names.items()), size=_CHUNK_FILES), workers=pool.workers)
    results = run_chunks(
        _extract_zip_chunk,
        chunks,
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
    except _READ_ERRORS as error:
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
    if info.compress_type not in _METHODS:
        raise ArchiveError(
            f"entry {printable(info.filename)} is compressed by a method that is not read here; "
            "unpack the archive with another program and name its folder to the next script"
        )
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
    return [_extract_entry(archive, infos[index], f"{folder}/{name}") for index, name in chunk]


def _extract_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: str) -> int:
    try:
        with archive.open(info) as packed:
            return _write_file(packed, target, name=info.filename, size=info.file_size)
    except _READ_ERRORS as error:
        _refuse(error, f"entry {printable(info.filename)} is damaged: {_damage(error)}")


def _refuse(error: Exception, reason: str) -> NoReturn:
    """Refuse an archive, unless the error is of the disk: the archive is not at fault then."""
    # Damaged offsets make libraries seek where no file has a place.
    of_disk = isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}
    if of_disk or isinstance(error, ArchiveError):
        raise error
    raise ArchiveError(reason) from error


def _damage(error: Exception) -> str:
    return one_line(error) if str(error).strip() else "it ends too early"


def _make_room(folder: Path, plan: ExtractionPlan) -> None:
    """Make the plan's folders; raises OSError unless the disk has room for its files."""
    needed = plan.size + len(plan.names) * _BLOCK_BYTES + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"Expected {needed / 2**30:,.1f} GiB of free disk space to unpack, found "
            f"{free / 2**30:,.1f} GiB. Make room, or name a folder on another disk",
        )
    for name in sorted({name.rpartition("/")[0] for name in plan.names.values()}):
        (folder / name).mkdir(parents=True, exist_ok=True)


def _write_file(packed: IO[bytes], target: str, *, name: str, size: int) -> int:
    """Write the entry `name`; what is longer or shorter than the archive said is refused."""
    written = 0
    # "x": a name that is taken after all is never written over.
    with open(target, "xb") as file:  # noqa: PTH123 (speed: a million small files)
        while written <= size and (data := packed.read(min(_COPY_BYTES, size - written + 1))):
            written += len(data)
            file.write(data)
    if written != size:
        found = "more" if written > size else f"{written:,}"
        raise ArchiveError(f"entry {printable(name)} has {found} bytes, the archive says {size:,}")
    return written


# First bytes of each kind of compressed file.
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\x00", lzma.open), (b"BZh", bz2.open))
NO_ARCHIVE = "it is neither a zip nor a tar archive, or it is incomplete"
# Records that hold the long name or the properties of the entry behind them.
_RECORD_TYPES = frozenset(
    {
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    }
)
_MAX_RECORD_BYTES = 2**20


class _StrictTarInfo(tarfile.TarInfo):
    """Stricter than the standard library, which loses files or fills the memory without a word.

    It takes a damaged header in the middle for the end, and reads records of any size at once.
    """

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _RECORD_TYPES and not 0 <= info.size <= _MAX_RECORD_BYTES:
            raise ArchiveError(
                f"expected at most {_MAX_RECORD_BYTES:,} bytes of name and properties before an "
                f"entry, found {info.size:,}; pack the images again without them"
            )
        return info

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset:,}") from error


def starts_as_tar(path: Path) -> bool:
    """Whether the first bytes are those of a tar archive or of a compressed file."""
    with path.open("rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    # A damaged first header is still one; an archive without entries starts with its end mark.
    if _opener_of(start) or start[257:262] == b"ustar" or start == bytes(tarfile.BLOCKSIZE):
        return True
    try:
        tarfile.TarInfo.frombuf(start, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def extract_tar(path: Path, folder: Path) -> ExtractionPlan:
    """Unpack a tar archive into an empty folder.

    Raises:
        ArchiveError: It is damaged, hostile or too large.
        OSError: The disk is too small, or cannot be written.
    """
    entries = [_tar_entry(member) for member, _ in _read_members(path)]
    plan = plan_extraction(entries, archive_bytes=path.stat().st_size)
    _make_room(folder, plan)
    with progress(description=f"Unpacking {path.name}", unit="file", total=len(plan.names)) as bar:
        for index, (member, packed) in enumerate(_read_members(path)):
            if index in plan.names and packed is not None:
                target = f"{folder}/{plan.names[index]}"
                _write_file(packed, target, name=member.name, size=member.size)
                bar.update()
    return plan


def _read_members(path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Each entry with its content, in one pass; the stream is read to its end for its checksum."""
    # Checked while reading: a compressed bomb would keep us busy for hours before the plan.
    most = max(HARMLESS_BYTES, MAX_RATIO * path.stat().st_size)
    last = "none"
    try:
        with _open_stream(path) as stream, _open_tar(stream) as archive:
            for member in archive:
                last = member.name
                if archive.offset > most:
                    raise ArchiveError(f"unpacks to more than {MAX_RATIO} times its size")
                yield member, archive.extractfile(member) if member.isreg() else None
            # tarfile has read ahead, so the rest has to come from its own file object.
            while rest := archive.fileobj.read(_COPY_BYTES):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError(
                        "data follows its end mark (a header of zeros, or tars joined in one file)"
                    )
                if stream.tell() > most:
                    raise ArchiveError(f"unpacks to more than {MAX_RATIO} times its size")
    except _READ_ERRORS as error:
        found = f"(last entry read: {printable(last)}): {_damage(error)}"
        _refuse(error, f"it is damaged or incomplete {found}")


def _open_tar(stream: IO[bytes]) -> tarfile.TarFile:
    """Open it for one pass; this reads the first header."""
    try:
        return tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo)
    except _READ_ERRORS as error:
        _refuse(error, NO_ARCHIVE)


@contextlib.contextmanager
def _open_stream(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        opener = _opener_of(file.read(6))
        file.seek(0)
        if opener is None:
            yield file
        else:
            with opener(file, "rb") as stream:
                yield stream


def _opener_of(start: bytes) -> Callable[..., IO[bytes]] | None:
    return next((opener for magic, opener in _OPENERS if start.startswith(magic)), None)


def _tar_entry(member: tarfile.TarInfo) -> ArchiveEntry:
    if member.isdir():
        kind = "folder"
    elif member.issym() or member.islnk():
        kind = "link"
    elif member.isreg():
        kind = "file"
    else:
        kind = "device"
    return ArchiveEntry(member.name, kind, member.size, -1)
