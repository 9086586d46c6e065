"""What zip and tar have in common: room on the disk, folders, files that keep to their size."""

from __future__ import annotations

import errno
import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from real_vs_ai.errors import one_line
from real_vs_ai.preparation.archive_entries import ArchiveError, ExtractionPlan

COPY_BYTES = 1 << 20
# A file takes whole blocks on the disk, half of one too many on average.
_BLOCK_BYTES = 4096
_SPARE_BYTES = 64 * 2**20
# What the archive libraries raise on damaged files.
READ_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,
    OverflowError,
    RuntimeError,
)
_DISK_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.EEXIST,
        errno.ENOENT,
        errno.ENAMETOOLONG,
    }
)


class Readable(Protocol):
    """What `write_file` needs of an entry."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, `size` at most; none at the end."""


def check_free_space(folder: Path, plan: ExtractionPlan) -> None:
    """Raise OSError unless the disk has room for what the plan unpacks."""
    needed = plan.size + len(plan.names) * _BLOCK_BYTES + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"Expected {needed / 2**30:,.1f} GiB of free disk space to unpack, found "
            f"{free / 2**30:,.1f} GiB. Make room, or name a folder on another disk",
        )


def make_folders(folder: Path, plan: ExtractionPlan) -> None:
    """Make every folder that the plan's files lie in."""
    for name in sorted({name.rpartition("/")[0] for name in plan.names.values()}):
        (folder / name).mkdir(parents=True, exist_ok=True)


def raise_if_disk(error: BaseException) -> None:
    """Raise errors of the disk again: they are no fault of the archive."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        raise error


def describe_damage(error: BaseException) -> str:
    """One line on what a library found wrong."""
    return one_line(error) if str(error).strip() else "it ends too early"


def write_file(packed: Readable, target: str, *, size: int) -> int:
    """Write one file; what is longer or shorter than the archive said is refused."""
    written = 0
    # "x": a name that is taken after all is never written over.
    with open(target, "xb") as file:  # noqa: PTH123 (speed: a million small files)
        while data := packed.read(min(COPY_BYTES, size - written + 1)):
            written += len(data)
            if written > size:
                raise ArchiveError(f"is longer than the {size:,} bytes the archive says")
            file.write(data)
    if written != size:
        raise ArchiveError(f"has {written:,} bytes, the archive says {size:,}")
    return written
