"""Take a zip as a folder of pictures, read in memory; no Streamlit here."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from real_vs_ai.errors import one_line
from real_vs_ai.images import ImageError
from real_vs_ai.serving.image_sources import list_zip_images, read_zip_entry
from real_vs_ai.ui.checking import MAX_BYTES, MAX_TOTAL_BYTES

SUFFIX = ".zip"
# Python's reader makes an object of each entry of the directory before anything can be counted.
_MOST_ENTRIES = 20_000
_ENTRY_SIGNATURE = b"PK\x01\x02"


@dataclass(frozen=True)
class ZippedFile:
    """One file of a zip; an `ImageFile` whose `getvalue` raises ImageError where it is unreadable.

    Attributes:
        file_id: The zip's own with the entry's index behind it.
        size: Of the unpacked file in bytes, as the zip claims.
    """

    name: str
    file_id: str
    size: int
    getvalue: Callable[[], bytes]


def open_zip(name: str, file_id: str, data: bytes) -> list[ZippedFile]:
    """The pictures in a zip, sorted by name; of one that cannot be read, a file that says why."""
    try:
        archive = _open(data)
        images = list(list_zip_images(archive))
    except ImageError as error:
        return [_refused(name, file_id, str(error))]
    if not images:
        return [_refused(name, file_id, "a zip without pictures in it")]
    sizes = [archive.infolist()[index].file_size for _, index in images]
    if sum(sizes) > MAX_TOTAL_BYTES:
        limit = f"{MAX_TOTAL_BYTES / 2**20:,.0f} MB"
        return [_refused(name, file_id, f"a zip of more than {limit} of pictures")]
    return [
        ZippedFile(
            f"{name}/{inner}",
            f"{file_id}/{index}",
            size,
            lambda index=index: read_zip_entry(archive, index, max_bytes=MAX_BYTES),
        )
        for (inner, index), size in zip(images, sizes, strict=True)
    ]


def _open(data: bytes) -> zipfile.ZipFile:
    if data.count(_ENTRY_SIGNATURE) > _MOST_ENTRIES:
        raise ImageError(f"a zip of more than {_MOST_ENTRIES:,} files")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ImageError(f"not a readable zip: {one_line(error)}") from error


def _refused(name: str, file_id: str, reason: str) -> ZippedFile:
    def refuse() -> bytes:
        raise ImageError(reason)

    return ZippedFile(name, file_id, 0, refuse)
