"""Decode and encode ordinary JPEGs with OpenCV: Pillow's pixels and bytes, several times faster.

Both libraries are built on libjpeg-turbo; what differs is the work around it. Ordinary means:
baseline, three components, no metadata that changes pixels, and quantisation tables that are those
of a quality from 1 to 100 (Annex K of the JPEG standard, scaled as libjpeg does).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cache, lru_cache

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

from real_vs_ai.config import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS

_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_BASELINE_FRAME = 0xC0
# Among the pixels 0xFF is followed by zero, or by the number of a restart.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
# Start of the file, JFIF, tables, baseline frame, scan, comment: nothing that changes pixels.
_HARMLESS_MARKERS = frozenset({0xE0, 0xDB, 0xC4, 0xDD, 0xDA, 0xFE, _BASELINE_FRAME})
# By Pillow's number of the subsampling: 4:4:4, 4:2:2, 4:2:0.
_SAMPLING_FACTORS = (
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
)


@dataclass(frozen=True, slots=True)
class PlainJpegSettings:
    """How an ordinary JPEG was encoded, and its size.

    Attributes:
        quality: 1 to 100, on libjpeg's scale.
    """

    quality: int
    sampling_factor: int
    width: int
    height: int


def plain_jpeg_settings(data: bytes) -> PlainJpegSettings | None:
    """How a file was encoded, or None unless it is an ordinary JPEG, whole to its end."""
    if not data.endswith(_END_OF_IMAGE) or len(data) > MAX_IMAGE_BYTES:
        # A file without the end marker is cut off.
        return None
    header = _harmless_header(data)
    # A marker among the pixels is a second scan, or damage, which OpenCV may pass over in silence.
    if not header or _MARKER.search(data, len(header) + 2, len(data) - 2):
        return None
    return _settings_of(header)


def decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """Pixels of an ordinary JPEG, shape (height, width, 3), uint8, blue first; None if damaged."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def encode_plain_jpeg(pixels: np.ndarray, settings: PlainJpegSettings) -> bytes:
    """Encode pixels, shape (height, width, 3), uint8, blue first."""
    parameters = [
        cv2.IMWRITE_JPEG_QUALITY,
        settings.quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        settings.sampling_factor,
    ]
    return cv2.imencode(".jpg", pixels, parameters)[1].tobytes()


def _harmless_header(data: bytes) -> bytes:
    """Everything before the pixels, or nothing where it has more than tables and sizes."""
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1] in _HARMLESS_MARKERS:
        if data[position + 1] == _START_OF_SCAN[1]:
            return data[:position]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return b""


# The images of a data set that one program encoded mostly share a header.
@lru_cache(maxsize=1024)
def _settings_of(header: bytes) -> PlainJpegSettings | None:
    try:
        with Image.open(io.BytesIO(header + _END_OF_IMAGE), formats=["JPEG"]) as image:
            sampling = JpegImagePlugin.get_sampling(image)
            quality = _quality_by_tables().get(_tables(image))
            width, height = image.size
            ordinary = image.mode == "RGB" and width * height <= MAX_IMAGE_PIXELS
    except (OSError, ValueError, SyntaxError, KeyError, IndexError, Image.DecompressionBombError):
        # Whatever is wrong, the decoder that reads all files finds it, and says it.
        return None
    if not ordinary or quality is None or sampling not in range(len(_SAMPLING_FACTORS)):
        return None
    return PlainJpegSettings(quality, _SAMPLING_FACTORS[sampling], width, height)


@cache
def _quality_by_tables() -> dict[tuple[tuple[int, ...], ...], int]:
    qualities = {}
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("RGB", (1, 1)).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as image:
            qualities[_tables(image)] = quality
    return qualities


def _tables(image: JpegImagePlugin.JpegImageFile) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(table) for _, table in sorted(image.quantization.items()))
