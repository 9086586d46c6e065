"""Read the text fields of a file's metadata: PNG text, EXIF and XMP.

Do not trust any field: each is read within limits, and never followed (no network).
"""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator

from PIL import ExifTags, Image

from real_vs_ai.images import DECODER_ERRORS, readable_formats

# Metadata stands at a file's beginning, or (PNG, WebP) at its end.
_SEARCHED_BYTES = 2 * 2**20
_LONGEST_FIELD = 1_000_000
_LONGEST_NAME = 120
_LONGEST_EXIF_BYTES = 2**20
_MOST_EXIF_VALUES = 100
_MOST_FIELDS = 200
# What damaged metadata makes Pillow and its plugins raise.
_DAMAGE = (*DECODER_ERRORS, Image.DecompressionBombError)


def read_fields(data: bytes) -> dict[str, str]:
    """Names and texts of a file's metadata: "XMP", "EXIF Make", "parameters" (PNG text), …

    There are at most 200, each at most a million characters long; {} if the file is unreadable.
    """
    return dict(itertools.islice(_metadata_fields(data), _MOST_FIELDS))


def _metadata_fields(data: bytes) -> Iterator[tuple[str, str]]:
    """Names and texts of a file's metadata, each at most `_LONGEST_FIELD` characters long."""
    xmp = _xmp_packet(data[:_SEARCHED_BYTES]) or _xmp_packet(data[-_SEARCHED_BYTES:])
    if xmp:
        yield "XMP", xmp.decode("utf-8", "replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
                yield from _text_fields(image)
                yield from _exif_fields(image)
    except _DAMAGE:
        return


def _xmp_packet(data: bytes) -> bytes:
    start = data.find(b"<x:xmpmeta")
    end = data.find(b"</x:xmpmeta>", start, start + _LONGEST_FIELD) if start >= 0 else -1
    return data[start:end] if end >= 0 else b""


def _text_fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    for name, value in image.info.items():
        if isinstance(name, str) and name not in {"exif", "icc_profile", "xmp"}:
            if isinstance(value, bytes):
                value = value[:_LONGEST_FIELD].decode("utf-8", "replace")
            if isinstance(value, str):
                yield name[:_LONGEST_NAME], value[:_LONGEST_FIELD]


def _exif_fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    if len(image.info.get("exif", b"")) > _LONGEST_EXIF_BYTES:
        return
    exif = image.getexif()
    for tags in (exif, exif.get_ifd(ExifTags.IFD.Exif)):
        for tag, value in tags.items():
            name = ExifTags.TAGS.get(tag)
            if name:
                yield f"EXIF {name}", _exif_text(value)


def _exif_text(value: object) -> str:
    if isinstance(value, tuple):
        value = value[:_MOST_EXIF_VALUES]
    if not isinstance(value, bytes):
        return str(value)[:_LONGEST_FIELD].strip()
    # A user comment begins with its encoding's name; programs disagree on the bytes' order.
    encoding = "utf-16-be" if value[:7] == b"UNICODE" else "utf-8"
    text = value[8:] if value[:7] in (b"UNICODE", b"ASCII\0\0") else value
    if encoding == "utf-16-be" and text[1:2] == b"\0":
        encoding = "utf-16-le"
    return text[:_LONGEST_FIELD].decode(encoding, "replace").strip("\0 ")
