"""Read the text fields of a file's metadata: PNG text, EXIF, XMP, IPTC and comments.

Do not trust any field: each is read within limits, and never followed (no network).
"""

from __future__ import annotations

import html
import io
import itertools
import json
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from real_vs_ai.core.images import DECODER_ERRORS, may_have_exif, readable_formats

# Metadata stands at a file's beginning, or (PNG, WebP) at its end.
_SEARCHED_BYTES = 2 * 2**20
_LONGEST_FIELD = 1_000_000
_LONGEST_PROPERTY = 100_000
_LONGEST_NAME = 120
_LONGEST_EXIF_BYTES = 2**20
_MOST_EXIF_VALUES = 100
_PREVIEW_TAGS = (ExifTags.Base.JpegIFOffset, ExifTags.Base.JpegIFByteCount)
_LARGEST_PREVIEW = 1024
_MOST_FIELDS = 200
_MOST_PNG_CHUNKS = 10_000
_TAG = re.compile(r"<[^<>]{0,1000}>")
_XMP_NAMES = ("XML:com.adobe.xmp", "xmp")
_IPTC_NAMES = {
    (2, 5): "Title",
    (2, 25): "Keywords",
    (2, 40): "SpecialInstructions",
    (2, 55): "DateCreated",
    (2, 65): "OriginatingProgram",
    (2, 80): "By-line",
    (2, 90): "City",
    (2, 92): "Sublocation",
    (2, 95): "ProvinceState",
    (2, 101): "CountryName",
    (2, 105): "Headline",
    (2, 110): "Credit",
    (2, 115): "Source",
    (2, 116): "CopyrightNotice",
    (2, 120): "Caption",
}
# ComfyUI's nodes for WebP and JPEG write its graphs into these tags, after their names.
_GRAPH = re.compile(r"(prompt|workflow)\s*:\s*(?=\{)", re.I)


def read_fields(data: bytes) -> dict[str, str]:
    """Names and texts of a file's metadata: "XMP", "EXIF Make", "parameters" (PNG text), …

    There are at most 200, each at most a million characters long; {} if the file is unreadable.
    """
    fields: dict[str, str] = {}
    for name, value in itertools.islice(_metadata_fields(data), _MOST_FIELDS):
        fields.setdefault(name, value)
    return fields


def xmp_property(fields: dict[str, str], name: str) -> str:
    """The text of the first XMP property of a name, without markup; "" if there is none.

    >>> xmp_property({"XMP": '<rdf:Description xmp:CreatorTool="A &amp; B"/>'}, "CreatorTool")
    'A & B'
    """
    xmp = fields.get("XMP", "")
    tag = re.search(rf":{re.escape(name)}(?=[\s=>])", xmp)
    if not tag:
        return ""
    start = tag.end()
    text = xmp[start : start + _LONGEST_PROPERTY]
    if attribute := re.match(r"\s*=\s*([\"'])", text):
        quote = attribute[1]
        return html.unescape(text[attribute.end() :].split(quote, 1)[0]).strip()
    # The element's own end; its values stand in rdf:Alt, rdf:Bag or rdf:Seq, one rdf:li each.
    element = text.partition(">")[2].partition(f":{name}>")[0].rpartition("<")[0]
    return html.unescape(_TAG.sub(" ", element)).strip()


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object out of a hostile text; {} if it is none."""
    if text.lstrip()[:1] != "{":
        return {}
    try:
        value = json.loads(text)
    except DECODER_ERRORS:
        return {}
    return value if isinstance(value, dict) else {}


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
                if may_have_exif(image, data):
                    yield from _exif_fields(image)
                yield from _iptc_fields(image)
    except DECODER_ERRORS:
        pass
    yield from _late_png_fields(data)


def _xmp_packet(data: bytes) -> bytes:
    start = data.find(b"<x:xmpmeta")
    end = data.find(b"</x:xmpmeta>", start, start + _LONGEST_FIELD) if start >= 0 else -1
    return data[start:end] if end >= 0 else b""


def _text_fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    for name, value in image.info.items():
        if isinstance(name, str) and name not in {"exif", "icc_profile", "photoshop"}:
            text = value[:_LONGEST_FIELD] if isinstance(value, (bytes, str)) else ""
            if isinstance(text, bytes):
                text = text.decode("utf-8", "replace")
            if text:
                yield "XMP" if name in _XMP_NAMES else name[:_LONGEST_NAME], text


def _exif_fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    if has_large_exif(image):
        return
    exif = image.getexif()
    for tags in (exif, exif.get_ifd(ExifTags.IFD.Exif)):
        for tag, value in tags.items():
            name = ExifTags.TAGS.get(tag)
            if not name or name == "XMLPacket":
                continue
            text = exif_text(value, name)
            if graph := _GRAPH.match(text):
                yield graph[1].lower(), text[graph.end() :]
            else:
                yield f"EXIF {name}", text


def has_large_exif(image: Image.Image) -> bool:
    """Whether the EXIF data are too large to be read."""
    return len(image.info.get("exif", b"")) > _LONGEST_EXIF_BYTES


def read_preview(image: Image.Image) -> Image.Image | None:
    """The small JPEG that a camera puts into the EXIF data, mode RGB, or None.

    Raises:
        DECODER_ERRORS: The EXIF data or the JPEG are damaged.
    """
    exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    if not exif:
        return None
    directory = image.getexif().get_ifd(ExifTags.IFD.IFD1)
    start, length = (directory.get(tag) for tag in _PREVIEW_TAGS)
    if not (isinstance(start, int) and isinstance(length, int) and length > 0):
        return None
    with Image.open(io.BytesIO(exif[start : start + length]), formats=["JPEG"]) as preview:
        return preview.convert("RGB") if max(preview.size) <= _LARGEST_PREVIEW else None


def exif_text(value: object, name: str) -> str:
    """The value of an EXIF tag as text, whatever its encoding, within limits."""
    if isinstance(value, tuple):
        value = value[:_MOST_EXIF_VALUES]
    if not isinstance(value, bytes):
        return str(value)[:_LONGEST_FIELD].strip()
    # A user comment begins with its encoding's name.
    text = value[8:] if value[:7] in (b"UNICODE", b"ASCII\0\0", b"\0" * 7) else value
    text = text[:_LONGEST_FIELD]
    encoding = _utf_16(text) or ("utf-16-be" if value[:7] == b"UNICODE" else "utf-8")
    if name.startswith("XP"):
        encoding = "utf-16-le"
    return text.decode(encoding, "replace").strip("\0\ufeff ")


def _utf_16(text: bytes) -> str:
    """The order of bytes of a UTF-16 text of mostly Latin letters, or ""; programs disagree."""
    beginning = text[:400]
    even, odd = beginning[::2].count(0), beginning[1::2].count(0)
    if max(even, odd) * 3 < len(beginning):
        return ""
    return "utf-16-be" if even > odd else "utf-16-le"


def _iptc_fields(image: ImageFile.ImageFile) -> Iterator[tuple[str, str]]:
    if image.format not in {"JPEG", "MPO", "TIFF"}:
        return
    for record, value in (IptcImagePlugin.getiptcinfo(image) or {}).items():
        text = value[0] if isinstance(value, list) and value else value
        if record in _IPTC_NAMES and isinstance(text, bytes):
            name = f"IPTC {_IPTC_NAMES[record]}"
            yield name, text[:_LONGEST_FIELD].decode("utf-8", "replace").strip("\0 ")


def _late_png_fields(data: bytes) -> Iterator[tuple[str, str]]:
    """Text behind a PNG's pixels, which Pillow reads only when it decodes them."""
    position, pixels = 8, False
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return
    for _ in range(_MOST_PNG_CHUNKS):
        if position + 12 > len(data):
            return
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if pixels and kind in {b"tEXt", b"zTXt", b"iTXt"}:
            content = data[position + 8 : position + 8 + min(length, _LONGEST_FIELD)]
            name, _, text = content.partition(b"\0")
            packed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
            if kind == b"zTXt":
                text = text[1:]
            elif kind == b"iTXt":
                # The language and the translated name stand before the text.
                text = text[2:].split(b"\0", 2)[-1]
            if packed:
                text = _unpack(text)
            encoding = "utf-8" if kind == b"iTXt" else "latin-1"
            yield name.decode("latin-1")[:_LONGEST_NAME], text.decode(encoding, "replace")
        pixels = pixels or kind == b"IDAT"
        position += length + 12


def _unpack(data: bytes) -> bytes:
    """The beginning of compressed text; b"" where it is damaged."""
    try:
        return zlib.decompressobj().decompress(data, _LONGEST_FIELD)
    except zlib.error:
        return b""
