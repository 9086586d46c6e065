"""Unpack tar archives: read them once for the table of contents, and again to unpack."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from real_vs_ai.preparation.archive_entries import (
    COPY_BYTES,
    HARMLESS_BYTES,
    READ_ERRORS,
    ArchiveEntry,
    ArchiveError,
    ExtractionLimits,
    ExtractionPlan,
    check_free_space,
    describe_damage,
    make_folders,
    plan_extraction,
    printable,
    raise_if_disk,
    write_file,
)
from real_vs_ai.reporting import progress_bar

# First bytes of each kind of compressed file.
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\x00", lzma.open), (b"BZh", bz2.open))
NO_ARCHIVE = "it is neither a zip nor a tar archive, or it is not whole"
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


def extract_tar(path: Path, folder: Path, *, limits: ExtractionLimits) -> ExtractionPlan:
    """Unpack a tar archive into an empty folder.

    Raises:
        ArchiveError: It is damaged, hostile or too large.
        OSError: The disk is too small, or cannot be written.
    """
    entries = [_tar_entry(member) for member, _ in _read_members(path, limits=limits)]
    plan = plan_extraction(entries, archive_bytes=path.stat().st_size, limits=limits)
    check_free_space(folder, plan)
    make_folders(folder, plan)
    with progress_bar(
        description=f"Unpacking {path.name}", unit="file", total=len(plan.names)
    ) as bar:
        for index, (member, packed) in enumerate(_read_members(path, limits=limits)):
            if index in plan.names and packed is not None:
                try:
                    write_file(packed, f"{folder}/{plan.names[index]}", size=member.size)
                except ArchiveError as error:
                    raise ArchiveError(f"entry {printable(member.name)} {error}") from error
                bar.update()
    return plan


def _read_members(
    path: Path, *, limits: ExtractionLimits
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Each entry with its content, in one pass; the stream is read to its end for its checksum."""
    # Looked at while reading: a compressed bomb would keep us busy for hours before it is planned.
    most = max(HARMLESS_BYTES, limits.max_ratio * path.stat().st_size)
    last = "none"
    try:
        with _open_stream(path) as stream, _open_tar(stream) as archive:
            for member in archive:
                last = member.name
                if archive.offset > most:
                    raise ArchiveError(
                        f"unpacks to more than {limits.max_ratio:g} times its size (--max-ratio)"
                    )
                yield member, archive.extractfile(member) if member.isreg() else None
            # tarfile has read ahead, so the rest has to come from its own file object.
            while rest := archive.fileobj.read(COPY_BYTES):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError(
                        "data follows its end mark (a header of zeros, or tars joined in one file)"
                    )
                if stream.tell() > most:
                    raise ArchiveError(
                        f"unpacks to more than {limits.max_ratio:g} times its size (--max-ratio)"
                    )
    except ArchiveError:
        raise
    except READ_ERRORS as error:
        raise_if_disk(error)
        raise ArchiveError(
            f"it is damaged or not whole (last entry read: {printable(last)}): "
            f"{describe_damage(error)}"
        ) from error


def _open_tar(stream: IO[bytes]) -> tarfile.TarFile:
    """Open it for one pass; this reads the first header."""
    try:
        return tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo)
    except ArchiveError:
        raise
    except READ_ERRORS as error:
        raise_if_disk(error)
        raise ArchiveError(NO_ARCHIVE) from error


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
