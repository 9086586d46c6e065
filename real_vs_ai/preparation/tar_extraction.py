"""Tar archives, plain or compressed: read once for the table of contents, again to unpack."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from real_vs_ai.preparation.archive_entries import (
    HARMLESS_BYTES,
    ArchiveEntry,
    ArchiveError,
    ExtractionLimits,
    ExtractionPlan,
    plan_extraction,
    printable,
)
from real_vs_ai.preparation.unpacking import (
    COPY_BYTES,
    READ_ERRORS,
    check_free_space,
    describe_damage,
    make_folders,
    raise_if_disk,
    write_file,
)
from real_vs_ai.reporting import progress_bar

# First bytes of each kind of compressed file.
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\x00", lzma.open), (b"BZh", bz2.open))


class _StrictTarInfo(tarfile.TarInfo):
    """The standard library takes a damaged header in the middle for the end; the rest is lost."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset:,}") from error


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
            while stream.read(COPY_BYTES):
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
    return tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo)


@contextlib.contextmanager
def _open_stream(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        opener = next((opener for magic, opener in _OPENERS if start.startswith(magic)), None)
        if opener is None:
            yield file
        else:
            with opener(file, "rb") as stream:
                yield stream


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
