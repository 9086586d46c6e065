r"""Count the parts of an image file before a decoder opens it, and refuse hostile files.

A decoder makes an object of each part: a JPEG of 40 MB may hold ten million empty segments, which
took Pillow a minute and 3 GB. The limits are far above what cameras and editors write. A walk stops
at its limit, and never costs more than a few hundredths of a second.

>>> find_excess(b"\xff\xd8" + b"\xff\xe1\x00\x02" * 2000)
'more than 1,000 segments in a JPEG: cameras and editors write a few dozen'
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable

from real_vs_ai.core.messages import Message

MB = 2**20
# An Exif block of several segments is rare: 64 KB hold a camera's. The longest XMP packets, with
# maps of depth, and seals with thumbnails have some megabytes.
_MOST_SEGMENTS = 1_000
_MOST_SEGMENT_BYTES = 24 * MB
_MOST_EXIF_BYTES = MB
_MOST_PHOTOSHOP_BYTES = 2 * MB
# Every scan of a progressive JPEG goes over all its pixels; encoders write about ten. The length in
# a scan's header follows from its components: a phone's film behind the picture has no such bytes.
_JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MOST_SCANS = 100
_MOST_SCANNED_PIXELS = 1_600_000_000
# Some encoders write a chunk of pixels for each row.
_MOST_PIXEL_CHUNKS = 65_536
_PIXEL_CHUNKS = frozenset({b"IDAT", b"fdAT", b"fcTL"})
_MOST_CHUNKS = 10_000
_MOST_CHUNK_BYTES = 32 * MB
# Of at most 255 bytes each.
_MOST_PIXEL_BLOCKS = 400_000
# One strip for each row, or tiles of 16 × 16 pixels.
_MOST_TIFF_VALUES = 500_000
_TIFF_BYTE_TYPES = frozenset({1, 2, 6, 7})
_EXIF_POINTER = 34665
# Pillow decodes run lengths in Python.
_MOST_RUN_LENGTH_BYTES = MB


# How files begin that people take for pictures, and what to do with each.
_OTHER_KINDS = (
    (re.compile(rb"%PDF-"), Message("other.pdf")),
    (re.compile(rb"PK\x03\x04"), Message("other.zip")),
    (
        re.compile(
            rb"\s*(<\?xml[^<]{0,200})?(<!--.{0,500}?-->\s*)?(<!DOCTYPE svg[^>]{0,200}>\s*)?<svg",
            re.I | re.S,
        ),
        Message("other.svg"),
    ),
    (re.compile(rb"\s*<(!doctype html|html)", re.I), Message("other.page")),
)


def name_other_kind(data: bytes) -> str:
    """What a file is that is no picture, and what to do with it; "" where it is not known.

    >>> name_other_kind(b"%PDF-1.7")
    'a PDF, not a picture: save its pictures one by one'
    """
    return next((kind for start, kind in _OTHER_KINDS if start.match(data)), "")


def find_excess(data: bytes) -> str:
    """Why a decoder would take too long with a file, in a few words; "" where it would not."""
    for is_of_format, find in _WALKS:
        if is_of_format(data):
            try:
                return find(data)
            except (struct.error, IndexError):
                # The file ends within a part: its decoder says so.
                return ""
    return ""


def _of_jpeg(data: bytes) -> str:
    position, total, exif, photoshop, pixels = 2, 0, 0, 0, 1
    for _ in range(_MOST_SEGMENTS):
        # Bytes between two segments count as segments: Pillow skips them one by one.
        if data[position] != 0xFF or data[position + 1] in (0x00, 0xFF):
            position += 1
            continue
        marker = data[position + 1]
        if marker == 0xDA:
            most = min(_MOST_SCANS, _MOST_SCANNED_PIXELS // max(1, pixels))
            if any(itertools.islice(_JPEG_SCAN.finditer(data), most, None)):
                return Message("excess.jpeg_scans", most=most)
            return ""
        if 0xD0 <= marker <= 0xD9 or marker == 0x01:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, position + 5)
            pixels = height * width
        total += length
        exif += length * (marker == 0xE1 and data[position + 4 : position + 8] == b"Exif")
        photoshop += length * (marker == 0xED)
        for name, size, most in (
            ("jpeg_bytes", total, _MOST_SEGMENT_BYTES),
            ("jpeg_exif", exif, _MOST_EXIF_BYTES),
            ("jpeg_photoshop", photoshop, _MOST_PHOTOSHOP_BYTES),
        ):
            if size > most:
                return Message(f"excess.{name}", megabytes=most // MB)
        position += 2 + max(length, 2)
    return Message("excess.jpeg_segments", most=_MOST_SEGMENTS)


def _of_png(data: bytes) -> str:
    position, pixels, others, size = 8, 0, 0, 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in _PIXEL_CHUNKS:
            pixels += 1
        else:
            others += 1
            size += length
        if kind == b"IEND":
            break
        if pixels > _MOST_PIXEL_CHUNKS or others > _MOST_CHUNKS:
            most = _MOST_CHUNKS if others > _MOST_CHUNKS else _MOST_PIXEL_CHUNKS
            return Message("excess.png_chunks", most=most)
        if size > _MOST_CHUNK_BYTES:
            return Message("excess.png_bytes", megabytes=_MOST_CHUNK_BYTES // MB)
        position += 12 + length
    return ""


def _of_gif(data: bytes) -> str:
    """Walk to the second picture: nobody reads further."""
    position, blocks, pixels, pictures = 13, 0, 0, 0
    if data[10] & 128:
        position += 3 << (data[10] & 7) + 1
    while (mark := data[position]) != 0x3B:
        blocks += 1
        if mark == 0x2C:
            pictures += 1
            if pictures == 2:
                break
            flags = data[position + 9]
            position += 11 + (3 << (flags & 7) + 1 if flags & 128 else 0)
        else:
            position += 2 if mark == 0x21 else 1
        if mark in (0x21, 0x2C):
            while length := data[position]:
                position += 1 + length
                pixels += mark == 0x2C
                blocks += mark == 0x21
                if pixels > _MOST_PIXEL_BLOCKS or blocks > _MOST_CHUNKS:
                    break
            position += 1
        if pixels > _MOST_PIXEL_BLOCKS or blocks > _MOST_CHUNKS:
            most = _MOST_CHUNKS if blocks > _MOST_CHUNKS else _MOST_PIXEL_BLOCKS
            return Message("excess.gif_blocks", most=most)
    return ""


def _of_webp(data: bytes) -> str:
    position = 12
    for _ in range(_MOST_CHUNKS):
        if position + 8 > len(data):
            return ""
        (length,) = struct.unpack_from("<I", data, position + 4)
        position += 8 + length + length % 2
    return Message("excess.webp_chunks", most=_MOST_CHUNKS)


def _of_boxes(data: bytes) -> str:
    position = 0
    for _ in range(_MOST_CHUNKS):
        if position + 8 > len(data):
            return ""
        (length,) = struct.unpack_from(">I", data, position)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length < 8:
            # 0: it reaches to the file's end. Anything else is damage.
            return ""
        position += length
    return Message("excess.boxes", most=_MOST_CHUNKS)


def _of_tiff(data: bytes) -> str:
    """Look at the first directory and the Exif directory that it names."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in data[2:4]
    entry_format, step = (f"{order}HHQQ", 20) if is_big else (f"{order}HHII", 12)
    count_format, width = (f"{order}Q", 8) if is_big else (f"{order}H", 2)
    (position,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
    directories = [position]
    for position in directories:
        (count,) = struct.unpack_from(count_format, data, position)
        if count > _MOST_CHUNKS:
            return Message("excess.tiff_entries", most=_MOST_CHUNKS)
        for index in range(count):
            entry = struct.unpack_from(entry_format, data, position + width + index * step)
            tag, kind, values, value = entry
            if kind not in _TIFF_BYTE_TYPES and values > _MOST_TIFF_VALUES:
                return Message("excess.tiff_values", most=_MOST_TIFF_VALUES)
            if tag == _EXIF_POINTER and len(directories) == 1:
                directories.append(value)
    return ""


def _of_bmp(data: bytes) -> str:
    is_packed = struct.unpack_from("<I", data, 30)[0] in (1, 2)
    if is_packed and len(data) > _MOST_RUN_LENGTH_BYTES:
        return Message("excess.bmp_runs", megabytes=_MOST_RUN_LENGTH_BYTES // MB)
    return ""


_WALKS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], str]], ...] = (
    (lambda data: data.startswith(b"\xff\xd8\xff"), _of_jpeg),
    (lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"), _of_png),
    (lambda data: data.startswith((b"GIF87a", b"GIF89a")), _of_gif),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", _of_webp),
    (lambda data: data.startswith((b"II", b"MM")), _of_tiff),
    (lambda data: data[4:8] == b"ftyp", _of_boxes),
    (lambda data: data.startswith(b"BM"), _of_bmp),
)
