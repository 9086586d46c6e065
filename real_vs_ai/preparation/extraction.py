"""Read zip and tar archives that nobody vouches for: list their entries, and write some."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, NoReturn, TypeVar

from real_vs_ai.errors import InputError, one_line
from real_vs_ai.parallel import Pool, chunked, run_chunks
from real_vs_ai.reporting import progress

T = TypeVar("T")
# Unpacked bytes for each packed byte, of the archive and of every large entry.
MAX_RATIO = 100
# Below this a high ratio is a file of zeros, not a bomb.
HARMLESS_BYTES = 64 * 2**20
_CHUNK_FILES = 1000
# With other methods zipfile unpacks an entry whole before it counts, however large it is.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_COPY_BYTES = 1 << 20
# What the archive libraries raise on damaged files.
_LIBRARY_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
_READ_ERRORS = (*_LIBRARY_ERRORS, EOFError, OSError, ValueError, OverflowError, RuntimeError)
_NO_ARCHIVE = "it is neither a zip nor a tar archive, or it is incomplete"


class ArchiveError(InputError):
    """An archive that is refused; the message names the entry and the reason."""


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One line of an archive's table of contents.

    Attributes:
        kind: "file", "folder", "link" or "device".
        size: Unpacked bytes, as the archive says.
        packed_size: Packed bytes, or -1 where entries are not packed one by one.
    """

    name: str
    kind: str
    size: int
    packed_size: int
    encrypted: bool = False


def printable(name: str) -> str:
    """An entry's name as one harmless line."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def open_archive(path: Path) -> tuple[list[ArchiveEntry], Callable[..., None]]:
    """An archive's entries, and the function that writes some of them.

    Returns:
        The entries, and a function to call with the wanted names by the entries' indices, the
        folder that gets them (with all folders that the names need), and `pool`.

    Raises:
        ArchiveError: It is no archive, or damaged. So does the function, for a damaged entry.
    """
    # A zip is recognised by its end, where a tar may hold a zip: tar comes first.
    if _starts_as_tar(path):
        entries = [_tar_entry(member) for member, _ in _read_members(path)]
        return entries, partial(_write_tar_entries, path)
    if not zipfile.is_zipfile(path):
        raise ArchiveError(_NO_ARCHIVE)
    status = path.stat()
    # Workers may outlive a run, and a new archive may take an old one's name.
    archive_id = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    entries = [_zip_entry(info) for info in _open_zip(archive_id).infolist()]
    return entries, partial(_write_zip_entries, archive_id)


def _write_zip_entries(
    archive_id: tuple[str, int, int], names: Mapping[int, str], folder: Path, *, pool: Pool
) -> None:
    infos = _open_zip(archive_id).infolist()
    _check_overlaps([infos[index] for index in names])
    results = run_chunks(
        _write_zip_chunk,
        _spread(chunked(list(names.items()), size=_CHUNK_FILES), workers=pool.workers),
        archive_id,
        str(folder.resolve()),
        pool=pool,
        description=f"Unpacking {Path(archive_id[0]).name}",
        unit="file",
    )
    try:
        for _ in results:
            pass
    finally:
        # Windows deletes no file that is open.
        _open_zip.cache_clear()


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
    kind = {0x0: "file", 0x8: "file", 0xA: "link"}.get(file_type, "device")
    if info.compress_type not in _METHODS:
        raise ArchiveError(
            f"entry {printable(info.filename)} is compressed by a method that is not read here; "
            "unpack the archive with another program and name its folder to the next script"
        )
    return ArchiveEntry(
        # ZipInfo cuts a name at a NUL and would hide the rest.
        info.orig_filename,
        "folder" if info.is_dir() else kind,
        info.file_size,
        info.compress_size,
        encrypted=bool(info.flag_bits & 0x41),
    )


def _check_overlaps(infos: Sequence[zipfile.ZipInfo]) -> None:
    """Entries that share bytes are how small archives become huge ones."""
    end, last = 0, ""
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ArchiveError(f"entries {printable(last)} and {printable(info.filename)} overlap")
        end, last = info.header_offset + 30 + info.compress_size, info.filename


def _write_zip_chunk(
    chunk: Sequence[tuple[int, str]], archive_id: tuple[str, int, int], folder: str
) -> list[int]:
    archive = _open_zip(archive_id)
    infos = archive.infolist()
    return [_write_zip_entry(archive, infos[index], f"{folder}/{name}") for index, name in chunk]


def _write_zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: str) -> int:
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


def _starts_as_tar(path: Path) -> bool:
    """Whether the first bytes are those of a tar archive or of a compressed file."""
    with path.open("rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    # A damaged first header is still one; an archive without entries starts with its end mark.
    if (
        _opener_of(start) != _as_it_is
        or start[257:262] == b"ustar"
        or start == bytes(tarfile.BLOCKSIZE)
    ):
        return True
    try:
        tarfile.TarInfo.frombuf(start, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _write_tar_entries(path: Path, names: Mapping[int, str], folder: Path, *, pool: Pool) -> None:
    """One entry after another: a tar archive can be read in one way only."""
    with progress(description=f"Unpacking {path.name}", unit="file", total=len(names)) as bar:
        for index, (member, packed) in enumerate(_read_members(path)):
            if index in names and packed is not None:
                target = f"{folder}/{names[index]}"
                _write_file(packed, target, name=member.name, size=member.size)
                bar.update()


def _read_members(path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Each entry with its content, in one pass; the stream is read to its end for its checksum."""
    # Checked while reading: a compressed bomb would keep us busy for hours before the plan.
    most = max(HARMLESS_BYTES, MAX_RATIO * path.stat().st_size)
    last = "none"
    try:
        with (
            path.open("rb") as file,
            _opener_of(file.peek(6))(file, "rb") as stream,
            _open_tar(stream) as archive,
        ):
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
        _refuse(error, _NO_ARCHIVE)


def _opener_of(start: bytes) -> Callable[..., IO[bytes]]:
    """What opens a file whose content begins like this, decompressing it where it has to."""
    return next((opener for magic, opener in _OPENERS if start.startswith(magic)), _as_it_is)


def _as_it_is(file: IO[bytes], mode: str) -> IO[bytes]:
    return file


def _tar_entry(member: tarfile.TarInfo) -> ArchiveEntry:
    kind = "file" if member.isreg() else "folder" if member.isdir() else "device"
    if member.issym() or member.islnk():
        kind = "link"
    return ArchiveEntry(member.name, kind, member.size, packed_size=-1)
